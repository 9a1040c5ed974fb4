//! The ledger as the runner sees it: frames in, commits out.

#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/properties.rs"]
mod properties;
#[path = "ledger/rules.rs"]
mod rules;
#[path = "ledger/world.rs"]
mod world;
