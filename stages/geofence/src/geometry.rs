//! Circles and distances on the earth, taken as a sphere, and edges of boundaries, which are straight in degrees.
//! The one room of the stage with floating point; `boundaries` and `travel` ask it.
//!
//! Decisions must be the same bits on every machine (invariant I1). The basic operations and square roots of IEEE
//! 754 are; sines and their like are not, since each platform's C library has its own. So those come from `libm`,
//! which is plain Rust. Nothing here is about money, and nothing here leaves the stage but yes or no.

#![expect(clippy::float_arithmetic, reason = "the shape of the earth; no money comes near")]

use jackpot_core::frame::validated::Point;

/// The mean radius of the earth (IUGG), in metres.
const EARTH_RADIUS_M: f64 = 6_371_008.8;
/// Above this a session did not travel (contract, section 3): 1,000 km/h, in metres per millisecond.
const SPEED_MAX_M_PER_MS: f64 = 1_000_000.0 / 3_600_000.0;

/// The columns and rows of the boundaries' raster: a cell is one degree wide and high.
pub const COLUMNS: usize = 360;
/// See [`COLUMNS`].
pub const ROWS: usize = 180;
/// The size of a cell in units of its vertices.
pub const CELL: i64 = 65_535;
/// How far, in such units, a point that stands for a piece of a cell keeps from the cell's border: 3 m.
const BORDER: i64 = 2;

/// A vertex in its cell: `x` to the east, `y` to the north, each from 0 to [`CELL`].
pub type Vertex = (i64, i64);

/// A cell that a circle touches.
#[derive(Debug, Clone, Copy)]
pub struct Touched {
    /// Its place in the raster, row by row from the north-west.
    pub index: usize,
    /// A point of it that is in the circle.
    pub sample: Vertex,
    /// Its western border, in degrees from the centre of the circle.
    west: f64,
    /// Its southern border, in degrees.
    south: f64,
}

/// The circle that a located player is within.
#[derive(Debug, Clone, Copy)]
pub struct Circle {
    latitude: f64,
    longitude: f64,
    cos_latitude: f64,
    /// The radius as an angle, in radians.
    radius: f64,
    /// The square of the sine of half of it, which compares distances.
    haversine: f64,
    /// How far it reaches from the centre to the north and south, and to the east and west, in degrees.
    reach: (f64, f64),
}

/// Whether the numbers of a point are in the ranges of the contract, as validate sees to.
pub fn is_on_earth(point: &Point) -> bool {
    (-90.0..=90.0).contains(&point.latitude)
        && (-180.0..=180.0).contains(&point.longitude)
        && (0.0..=20_000_000.0).contains(&point.accuracy_m)
}

impl Circle {
    /// The circle around a point that [`is_on_earth`].
    pub fn new(point: &Point) -> Self {
        let longitude = if point.longitude >= 180.0 { point.longitude - 360.0 } else { point.longitude };
        let radius = point.accuracy_m / EARTH_RADIUS_M;
        let cos_latitude = cos(point.latitude);
        let sine = libm::sin(radius);
        // A circle around a pole meets every meridian.
        let polar = radius.to_degrees() + point.latitude.abs() >= 90.0 || sine >= cos_latitude;
        let width = if polar { 180.0 } else { libm::asin(sine / cos_latitude).to_degrees() };
        Self {
            latitude: point.latitude,
            longitude,
            cos_latitude,
            radius,
            haversine: square(libm::sin(radius / 2.0)),
            reach: (radius.to_degrees(), width),
        }
    }

    /// The cell that the centre is in, and where in it.
    pub fn centre(&self) -> (usize, Vertex) {
        let (column, row) = (column(self.longitude), row(self.latitude));
        let x = units(self.longitude - west(column));
        let y = units(self.latitude - south(row));
        (index(column, row), (x, y))
    }

    /// The cells that the circle touches, row by row from the north.
    pub fn cells(&self) -> impl Iterator<Item = Touched> {
        let north = (self.latitude + self.reach.0).min(90.0);
        let south = (self.latitude - self.reach.0).max(-90.0);
        (row(north)..=row(south)).flat_map(move |row| self.row(row, north, south))
    }

    /// The cells of one row, between the circle's northernmost and southernmost parallel.
    fn row(&self, at: i64, north: f64, south_most: f64) -> impl Iterator<Item = Touched> {
        let low = south(at).max(south_most);
        let high = (south(at) + 1.0).min(north).max(low);
        let (width, latitude) = self.widest(low, high);
        let columns = match width {
            Some(width) if width >= 180.0 => column(self.longitude - 180.0)..column(self.longitude + 180.0),
            Some(width) => column(self.longitude - width)..column(self.longitude + width) + 1,
            None => 0..0,
        };
        let (centre, own) = self.centre();
        columns.map(move |column| {
            let (index, west) = (index(column, at), west(column) - self.longitude);
            let (x, y) = (units(0.0_f64.clamp(west, west + 1.0) - west), units(latitude - south(at)));
            let inside = |at: i64| at.clamp(BORDER, CELL - BORDER);
            let sample = if index == centre { own } else { (inside(x), inside(y)) };
            Touched { index, sample, west, south: south(at) }
        })
    }

    /// Half the width of the circle between two parallels, in degrees, and where it is that wide.
    fn widest(&self, low: f64, high: f64) -> (Option<f64>, f64) {
        let bulge = libm::asin((sin(self.latitude) / libm::cos(self.radius)).clamp(-1.0, 1.0)).to_degrees();
        let at = |latitude: f64| (self.half_width(latitude), latitude);
        let inner = at(bulge.clamp(low, high));
        [at(low), at(high)].into_iter().fold(inner, |best, other| if other.0 > best.0 { other } else { best })
    }

    /// Half the width of the circle on a parallel, in degrees of longitude; `None` where it does not get there.
    fn half_width(&self, latitude: f64) -> Option<f64> {
        let left = self.haversine - square(libm::sin((latitude - self.latitude).to_radians() / 2.0));
        let across = self.cos_latitude * cos(latitude);
        if left < 0.0 {
            None
        } else if left >= across {
            Some(180.0)
        } else {
            Some(2.0 * libm::asin((left / across).sqrt()).to_degrees())
        }
    }

    /// Whether an edge in a cell comes nearer to the centre than the radius.
    pub fn meets(&self, cell: &Touched, from: Vertex, to: Vertex) -> bool {
        let a = (cell.west + degrees(from.0), cell.south + degrees(from.1) - self.latitude);
        let b = (cell.west + degrees(to.0), cell.south + degrees(to.1) - self.latitude);
        let (height, width) = self.reach;
        if a.1.min(b.1) > height || a.1.max(b.1) < -height || a.0.min(b.0) > width || a.0.max(b.0) < -width {
            return false;
        }
        // The nearest point of the edge as a map shows it, then its distance on the sphere. An edge is at most a
        // degree long, so that where exactly the nearest point lies makes no difference that counts.
        let scale = cos(self.latitude + (a.1 + b.1) / 4.0);
        let run = ((b.0 - a.0) * scale, b.1 - a.1);
        let length = square(run.0) + square(run.1);
        let along = -(a.0 * scale * run.0 + a.1 * run.1);
        let part = if length > 0.0 { (along / length).clamp(0.0, 1.0) } else { 0.0 };
        [0.0, part, 1.0].into_iter().any(|part| {
            let (east, north) = (a.0 + part * (b.0 - a.0), a.1 + part * (b.1 - a.1));
            haversine(self.cos_latitude, cos(self.latitude + north), north, east) < self.haversine
        })
    }
}

/// Whether nobody gets from one circle to the other in this time, however short or long, forwards or back.
pub fn too_far(from: &Point, to: &Point, elapsed_ms: u64) -> bool {
    gap_m(from, to) > SPEED_MAX_M_PER_MS * whole(elapsed_ms)
}

/// How far two circles are apart at least, in whole kilometres, for people.
pub fn gap_km(from: &Point, to: &Point) -> String {
    metres(gap_m(from, to) / 1_000.0)
}

/// A length in whole units, for people.
pub fn metres(length: f64) -> String {
    format!("{length:.0}")
}

/// The great-circle distance of two points less both accuracies, in metres; not above 0 where the circles meet.
pub fn gap_m(from: &Point, to: &Point) -> f64 {
    let (north, east) = (to.latitude - from.latitude, to.longitude - from.longitude);
    let haversine = haversine(cos(from.latitude), cos(to.latitude), north, east);
    2.0 * libm::asin(haversine.sqrt().min(1.0)) * EARTH_RADIUS_M - from.accuracy_m - to.accuracy_m
}

/// The square of the sine of half the angle between two points: the cosines of their latitudes, and what lies
/// between them, in degrees.
fn haversine(cos_from: f64, cos_to: f64, north: f64, east: f64) -> f64 {
    let half = |degrees: f64| square(libm::sin(degrees.to_radians() / 2.0));
    half(north) + cos_from * cos_to * half(east)
}

fn square(x: f64) -> f64 {
    x * x
}

/// Never below zero: a pole's cosine is zero, however it is rounded.
fn cos(degrees: f64) -> f64 {
    libm::cos(degrees.to_radians()).max(0.0)
}

fn sin(degrees: f64) -> f64 {
    libm::sin(degrees.to_radians())
}

/// The western border of a column, in degrees. Columns go on beyond the antimeridian.
fn west(column: i64) -> f64 {
    small(column) - 180.0
}

/// The southern border of a row, in degrees.
fn south(row: i64) -> f64 {
    89.0 - small(row)
}

/// The column of a longitude, which may lie beyond the antimeridian.
fn column(longitude: f64) -> i64 {
    floor(longitude + 180.0)
}

/// The row of a latitude. What lies on a border between rows is in the northern one, as the boundaries' maker has it.
fn row(latitude: f64) -> i64 {
    (-floor(latitude - 90.0) - 1).clamp(0, 179)
}

fn index(column: i64, row: i64) -> usize {
    let index = row * 360 + column.rem_euclid(360);
    usize::try_from(index).expect("rows and columns are not negative")
}

/// Degrees in a cell as units of its vertices. Next to its border they may be rounded beyond.
fn units(degrees: f64) -> i64 {
    floor(degrees * 65_535.0).clamp(0, CELL)
}

fn degrees(units: i64) -> f64 {
    small(units) / 65_535.0
}

#[expect(clippy::cast_possible_truncation, reason = "degrees and units are below 2⁵³, and a cast saturates")]
fn floor(x: f64) -> i64 {
    x.floor() as i64
}

#[expect(clippy::cast_precision_loss, reason = "columns, rows and units are below 2⁵³")]
fn small(x: i64) -> f64 {
    x as f64
}

#[expect(clippy::cast_precision_loss, reason = "exact for 285,000 years, and near enough after")]
fn whole(x: u64) -> f64 {
    x as f64
}
