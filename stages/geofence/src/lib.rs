//! The geofence stage.
