//! The boundaries' data: which areas cover each cell of one degree, wholly or in part, and their outlines there.
//! `boundaries` asks it; nothing here knows of circles.
//!
//! The data belong to the version of the rules: other data would decide otherwise. So they are known by their
//! digest, and a build with other data does not start. Codes outside ISO 3166-1 (`IC`, `XK`) are left out, since
//! terms cannot name them: what they cover is in the country around them, or in none.

use std::collections::BTreeMap;

use country_boundaries::BOUNDARIES_ODBL_360X180;
use jackpot_core::digest::Digest;
use jackpot_core::names;

use crate::geometry::{CELL, COLUMNS, ROWS, Vertex};

/// The SHA-256 of the boundaries of rules version 1: those of `country-boundaries` 1.2.0.
const DIGEST: &str = "7355dd1447c5671df8a8b08d7c3e827099d649114cce04ad9bb053707df19cc8";
/// The version of the data's format.
const FORMAT: u16 = 2;

/// The number of an area, in the order of the codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Area(u16);

impl Area {
    /// Its place in a list of all areas.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The data, as they are asked.
#[derive(Debug)]
pub struct Raster {
    areas: Vec<Known>,
    /// Row by row from the north-west.
    cells: Vec<Cell>,
}

/// What is known of an area.
#[derive(Debug)]
struct Known {
    code: &'static str,
    country: Area,
    size: f64,
    /// The larger areas that are in every cell in which this one is.
    within: Vec<Area>,
}

/// What is in a cell.
#[derive(Debug)]
pub struct Cell {
    /// The areas that cover it.
    pub whole: Box<[Area]>,
    /// Those that cover a part of it.
    pub parts: Box<[Part]>,
}

/// The part of an area that lies in a cell.
#[derive(Debug)]
pub struct Part {
    /// The area.
    pub area: Area,
    outer: Box<[Ring]>,
    /// Holes.
    inner: Box<[Ring]>,
}

type Ring = Box<[(u16, u16)]>;

impl Raster {
    /// Reads the data that this build carries.
    ///
    /// # Panics
    /// When they are not those of the rules version.
    pub fn read() -> Self {
        assert_eq!(
            Digest::of(BOUNDARIES_ODBL_360X180).to_string(),
            DIGEST,
            "the boundaries belong to the rules version: other ones need a new version"
        );
        Self::parse(&mut Reader(BOUNDARIES_ODBL_360X180)).expect("data with this digest can be read")
    }

    fn parse(reader: &mut Reader) -> Option<Self> {
        if reader.short()? != FORMAT {
            return None;
        }
        let mut sizes = BTreeMap::new();
        for _ in 0..reader.long()? {
            let code = reader.text()?;
            let size = f64::from_be_bytes(reader.bytes()?);
            if names::is_jurisdiction(code) {
                sizes.insert(code, size);
            }
        }
        let numbers: BTreeMap<&str, Area> = sizes.keys().copied().zip((0..).map(Area)).collect();
        let area = |(&code, &size)| {
            Some(Known { code, country: *numbers.get(names::country(code))?, size, within: Vec::new() })
        };
        let areas = sizes.iter().map(area).collect::<Option<Vec<_>>>()?;
        let (columns, count) = (reader.long()?, reader.long()?);
        if (columns, count) != (COLUMNS, COLUMNS * ROWS) {
            return None;
        }
        let cells = (0..count).map(|_| reader.cell(&numbers)).collect::<Option<Vec<_>>>()?;
        let mut raster = Self { areas, cells };
        raster.nest();
        reader.0.is_empty().then_some(raster)
    }

    /// Finds out which areas lie within others.
    fn nest(&mut self) {
        let mut seen = vec![false; self.areas.len()];
        for cell in &self.cells {
            let here: Vec<Area> =
                cell.whole.iter().copied().chain(cell.parts.iter().map(|part| part.area)).collect();
            for &area in &here {
                let size = self.areas[area.index()].size;
                let larger = |other: &Area| self.areas[other.index()].size > size;
                let around = if std::mem::replace(&mut seen[area.index()], true) {
                    let before = &self.areas[area.index()].within;
                    before.iter().copied().filter(|other| here.contains(other)).collect()
                } else {
                    here.iter().copied().filter(larger).collect()
                };
                self.areas[area.index()].within = around;
            }
        }
    }

    /// How many areas there are.
    pub fn len(&self) -> usize {
        self.areas.len()
    }

    /// Its code.
    pub fn code(&self, area: Area) -> &'static str {
        self.areas[area.index()].code
    }

    /// The one with this code.
    pub fn area(&self, code: &str) -> Option<Area> {
        let at = self.areas.binary_search_by_key(&code, |known| known.code).ok()?;
        u16::try_from(at).ok().map(Area)
    }

    /// The country of a subdivision; a country itself.
    pub fn country(&self, area: Area) -> Area {
        self.areas[area.index()].country
    }

    /// Whether an area lies within a larger one, as far as cells tell: where both are at a point, the first is the
    /// finer answer.
    pub fn is_within(&self, inner: Area, outer: Area) -> bool {
        self.areas[inner.index()].within.contains(&outer)
    }

    /// A cell by its place.
    pub fn cell(&self, index: usize) -> &Cell {
        &self.cells[index]
    }
}

impl Part {
    /// Whether a point of the cell is in it.
    pub fn covers(&self, point: Vertex) -> bool {
        let around = |rings: &[Ring]| rings.iter().filter(|ring| winds(ring, point)).count();
        around(&self.outer) > around(&self.inner)
    }

    /// Its edges, but for those along the border of the cell: there it was cut, and the next cell tells what is
    /// beyond.
    pub fn borders(&self) -> impl Iterator<Item = (Vertex, Vertex)> {
        let cut = |(from, to): &(Vertex, Vertex)| {
            [0, CELL].iter().any(|at| (from.0 == *at && to.0 == *at) || (from.1 == *at && to.1 == *at))
        };
        self.outer.iter().chain(&self.inner).flat_map(|ring| edges(ring)).filter(move |edge| !cut(edge))
    }
}

/// The edges of a ring, the closing one first.
fn edges(ring: &[(u16, u16)]) -> impl Iterator<Item = (Vertex, Vertex)> {
    let vertex = |&(x, y): &(u16, u16)| (i64::from(x), i64::from(y));
    ring.last().into_iter().chain(ring).map(vertex).zip(ring.iter().map(vertex))
}

/// Whether a ring winds around a point (Dan Sunday, 2001).
fn winds(ring: &[(u16, u16)], (x, y): Vertex) -> bool {
    let mut winding = 0;
    for (from, to) in edges(ring) {
        let left = (to.0 - from.0) * (y - from.1) - (x - from.0) * (to.1 - from.1);
        if from.1 <= y && to.1 > y && left > 0 {
            winding += 1;
        } else if from.1 > y && to.1 <= y && left < 0 {
            winding -= 1;
        }
    }
    winding != 0
}

/// What is left of the data: big-endian numbers, texts and lists with their lengths before them.
struct Reader(&'static [u8]);

impl Reader {
    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn short(&mut self) -> Option<u16> {
        self.bytes().map(u16::from_be_bytes)
    }

    fn long(&mut self) -> Option<usize> {
        usize::try_from(u32::from_be_bytes(self.bytes()?)).ok()
    }

    fn text(&mut self) -> Option<&'static str> {
        let len = usize::from(self.short()?);
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }

    /// A list whose length is one byte.
    fn list<T>(&mut self, mut read: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let [len] = self.bytes()?;
        (0..len).map(|_| read(self)).collect()
    }

    fn cell(&mut self, numbers: &BTreeMap<&str, Area>) -> Option<Cell> {
        let area = |code: &str| numbers.get(code).copied();
        let whole = self.list(|reader| reader.text().map(area))?;
        let parts = self.list(|reader| {
            let area = area(reader.text()?);
            let (outer, inner) = (reader.rings()?, reader.rings()?);
            Some(area.map(|area| Part { area, outer, inner }))
        })?;
        Some(Cell {
            whole: whole.into_iter().flatten().collect(),
            parts: parts.into_iter().flatten().collect(),
        })
    }

    fn rings(&mut self) -> Option<Box<[Ring]>> {
        let ring = |reader: &mut Self| {
            (0..reader.long()?).map(|_| Some((reader.short()?, reader.short()?))).collect::<Option<Ring>>()
        };
        self.list(ring).map(Into::into)
    }
}
