//! Where a located player is: the country and the subdivision that the boundaries know there, and whether the circle
//! of the location's accuracy lies wholly inside them. The stage asks it for each new location of a session.
//!
//! The boundaries are OpenStreetMap's, simplified and cut into cells of one degree, as the crate
//! `country-boundaries` ships them. That crate answers for points and for whole cells only, and a circle needs the
//! edges; so `raster` reads its data, and the crate itself is what the tests compare with.
//!
//! Areas overlap: a territory with a country code of its own lies in that of its sovereign (Gibraltar, Puerto Rico),
//! and claims do (Crimea). Nothing here knows the terms.

mod raster;

use std::sync::LazyLock;

use jackpot_core::frame::validated::Point;
use serde::{Deserialize, Serialize};

use crate::geometry::{self, Circle, Touched, Vertex};
use raster::{Cell, Part, Raster};

pub use raster::Area;

/// The boundaries of the rules that this build computes by.
#[derive(Debug)]
pub struct Boundaries {
    raster: Raster,
}

/// What the boundaries say of a circle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Spot {
    /// The country that the centre is in; `None` at sea, at the poles, and where several claim it.
    pub country: Option<Area>,
    /// The subdivision of that country that the centre is in, where the boundaries know one.
    pub subdivision: Option<Area>,
    /// Whether the circle lies wholly inside the country.
    pub in_country: bool,
    /// Whether the circle lies wholly inside the subdivision; where there is none, whether it meets no other that is
    /// known of the country.
    pub in_subdivision: bool,
}

/// How much of the circle in one cell is in an area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    Nothing,
    Some,
    All,
}

static BOUNDARIES: LazyLock<Boundaries> = LazyLock::new(|| Boundaries { raster: Raster::read() });

impl Boundaries {
    /// The boundaries, read at the first call.
    pub fn get() -> &'static Self {
        &BOUNDARIES
    }

    /// The code of an area.
    pub fn code(&self, area: Area) -> &'static str {
        self.raster.code(area)
    }

    /// The area with this code, where the boundaries know it.
    pub fn area(&self, code: &str) -> Option<Area> {
        self.raster.area(code)
    }

    /// How many areas there are.
    pub fn len(&self) -> usize {
        self.raster.len()
    }

    /// Whether there is no area at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a located player is.
    pub fn locate(&self, point: &Point) -> Spot {
        if !geometry::is_on_earth(point) {
            return Spot::default();
        }
        let circle = Circle::new(point);
        let (cell, at) = circle.centre();
        let found: Vec<Area> = self.raster.cell(cell).at(at).collect();
        let mut countries: Vec<Area> = found.iter().map(|&area| self.raster.country(area)).collect();
        countries.sort_unstable();
        countries.dedup();
        let Some(country) = self.innermost(&countries) else { return Spot::default() };
        let parts: Vec<Area> = found
            .into_iter()
            .filter(|&area| area != country && self.raster.country(area) == country)
            .collect();
        let subdivision = self.innermost(&parts);
        let mut spot = Spot { country: Some(country), subdivision, in_country: true, in_subdivision: true };
        for cell in circle.cells() {
            self.narrow(&mut spot, country, &circle, &cell);
            if !spot.in_country {
                return Spot { in_subdivision: false, ..spot };
            }
        }
        spot
    }

    /// Takes in what lies in one of the cells that the circle touches.
    fn narrow(&self, spot: &mut Spot, country: Area, circle: &Circle, touched: &Touched) {
        let cell = self.raster.cell(touched.index);
        let parts = cell.parts.iter().map(|part| (part.area, cover(part, circle, touched)));
        let (mut in_country, mut in_subdivision) = (Cover::Nothing, Cover::Nothing);
        for (area, cover) in cell.whole.iter().map(|&area| (area, Cover::All)).chain(parts) {
            if area == country {
                in_country = cover;
            } else if Some(area) == spot.subdivision {
                in_subdivision = cover;
            } else if cover != Cover::Nothing {
                let other = self.raster.country(area);
                if other == country {
                    let within = |part| self.raster.is_within(part, area);
                    spot.in_subdivision &= spot.subdivision.is_some_and(within);
                } else {
                    spot.in_country &= self.raster.is_within(country, other);
                }
            }
        }
        spot.in_country &= in_country == Cover::All;
        spot.in_subdivision &= spot.subdivision.is_none() || in_subdivision == Cover::All;
    }

    /// The area that lies within all the others.
    fn innermost(&self, areas: &[Area]) -> Option<Area> {
        let within = |inner: Area, outer: Area| inner == outer || self.raster.is_within(inner, outer);
        areas.iter().copied().find(|&inner| areas.iter().all(|&outer| within(inner, outer)))
    }
}

/// Without an edge inside the circle, one point tells of the whole piece of the circle that is in the cell.
fn cover(part: &Part, circle: &Circle, touched: &Touched) -> Cover {
    if part.borders().any(|(from, to)| circle.meets(touched, from, to)) {
        Cover::Some
    } else if part.covers(touched.sample) {
        Cover::All
    } else {
        Cover::Nothing
    }
}

impl Cell {
    /// The areas at a point of the cell.
    fn at(&self, point: Vertex) -> impl Iterator<Item = Area> {
        let parts = self.parts.iter().filter(move |part| part.covers(point)).map(|part| part.area);
        self.whole.iter().copied().chain(parts)
    }
}

#[cfg(test)]
mod tests;
