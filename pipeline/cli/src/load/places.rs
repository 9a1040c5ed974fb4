//! Where synthetic players are: for a jurisdiction a town well inside it, in millionths of a degree.
//! A jurisdiction that is not listed is claimed without coordinates.

/// How far players live from the town's centre to the north, south, east and west, in millionths of a degree.
pub const SPREAD: u64 = 5_000;
/// How exactly they are located at worst, in metres.
pub const ACCURACY_M_MAX: u64 = 120;

/// Latitude and longitude of a town in the jurisdiction, in millionths of a degree.
pub fn town(jurisdiction: &str) -> Option<(i64, i64)> {
    TOWNS
        .iter()
        .find(|(code, ..)| *code == jurisdiction)
        .map(|&(_, latitude, longitude)| (latitude, longitude))
}

const TOWNS: &[(&str, i64, i64)] = &[
    ("AT", 48_208_174, 16_373_819),      // Vienna
    ("CA-BC", 50_676_109, -120_340_836), // Kamloops
    ("CA-ON", 42_984_923, -81_245_277),  // London
    ("DE", 50_937_531, 6_960_279),       // Cologne
    ("DK", 56_162_939, 10_203_921),      // Aarhus
    ("ES", 40_416_775, -3_703_790),      // Madrid
    ("FI", 61_498_151, 23_761_025),      // Tampere
    ("FR", 45_764_043, 4_835_659),       // Lyon
    ("GB", 52_486_243, -1_890_401),      // Birmingham
    ("IE", 53_423_933, -7_940_690),      // Athlone
    ("IT", 43_769_560, 11_255_814),      // Florence
    ("MT", 35_890_360, 14_437_830),      // Attard
    ("NL", 52_090_737, 5_121_420),       // Utrecht
    ("PL", 52_229_676, 21_012_229),      // Warsaw
    ("PT", 40_203_314, -8_410_257),      // Coimbra
    ("SE", 59_274_720, 15_215_180),      // Örebro
    ("US-CO", 38_833_882, -104_821_363), // Colorado Springs
    ("US-CT", 41_558_152, -72_651_505),  // Middletown
    ("US-MI", 42_732_535, -84_555_535),  // Lansing
    ("US-NJ", 40_486_216, -74_451_819),  // New Brunswick
    ("US-NV", 36_169_941, -115_139_830), // Las Vegas
    ("US-PA", 40_273_191, -76_886_701),  // Harrisburg
    ("US-UT", 40_233_844, -111_658_534), // Provo
    ("US-WV", 38_349_820, -81_632_623),  // Charleston
];

#[cfg(test)]
mod tests {
    use geofence::boundaries::Boundaries;
    use jackpot_core::frame::validated::Point;
    use jackpot_core::names;

    use super::*;

    /// A circle around all players of a town, with the circles of their locations.
    fn around(latitude: i64, longitude: i64) -> Point {
        let degrees = |micro: i64| format!("{micro}e-6").parse().expect("a number");
        // A degree is at most 111.7 km, so that the corner of the spread is at most 790 m away.
        Point { latitude: degrees(latitude), longitude: degrees(longitude), accuracy_m: 910.0 }
    }

    #[test]
    fn every_player_of_a_town_is_in_its_jurisdiction() {
        assert_eq!((SPREAD, ACCURACY_M_MAX), (5_000, 120), "the circle below is as wide as that");
        let boundaries = Boundaries::get();
        for &(jurisdiction, latitude, longitude) in TOWNS {
            let spot = boundaries.locate(&around(latitude, longitude));
            let country = spot.country.map(|area| boundaries.code(area));
            assert_eq!(country, Some(names::country(jurisdiction)), "{jurisdiction}");
            assert!(spot.in_country && spot.in_subdivision, "{jurisdiction}");
            if names::country(jurisdiction) != jurisdiction {
                assert_eq!(spot.subdivision.map(|area| boundaries.code(area)), Some(jurisdiction));
            }
        }
    }
}
