//! The closed set of refusals (contract, section 3) and the stages that speak them.
//! The names here are the ones on the wire and in metric labels.

use std::fmt;

macro_rules! closed_set {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The number in a frame.
            pub fn code(self) -> u8 {
                match self { $(Self::$variant => $code,)* }
            }

            /// The one with this number in a frame.
            pub fn from_code(code: u8) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }

            /// The one with this name on the wire.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)* _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let name = String::deserialize(deserializer)?;
                Self::from_name(&name)
                    .ok_or_else(|| serde::de::Error::custom(format!("`{name}` is not one of the closed set")))
            }
        }
    };
}

closed_set! {
    /// A stage of the pipeline, in the order of the flow.
    StageName {
        /// Decides what is a wager.
        Validate = 1 "validate",
        /// Decides where it was made.
        Geofence = 2 "geofence",
        /// Decides which pools it joins and with how much.
        Allocate = 3 "allocate",
        /// The ledger: what that does to each level.
        Aggregate = 4 "aggregate",
        /// Checks that all of it is true.
        Audit = 5 "audit",
    }
}

closed_set! {
    /// Why a batch, a wager or a hit was refused. Where several fit, the first in this order, stage by stage.
    Reason {
        /// Batch: not JSON, no object, or an envelope with missing or wrong fields.
        Malformed = 1 "malformed",
        /// Batch: `schema` names something else than `wager-batch/1`.
        UnsupportedSchema = 2 "unsupported_schema",
        /// Batch: `operator` or `source` differs from the subject.
        SubjectMismatch = 3 "subject_mismatch",
        /// Batch: the terms know no such source of this operator.
        UnknownSource = 4 "unknown_source",
        /// Batch: unsigned or wrongly signed, and the source has keys.
        BadSignature = 5 "bad_signature",
        /// Batch: its sequence was accepted before.
        DuplicateBatch = 6 "duplicate_batch",
        /// Batch: its sequence lies below what is remembered of the source.
        StaleSequence = 7 "stale_sequence",
        /// Batch: its sequence is too far above the highest accepted one.
        SequenceJump = 8 "sequence_jump",
        /// Wager: a field is missing or out of its rule.
        InvalidField = 9 "invalid_field",
        /// Wager: `amount` is no decimal string of the contract's form.
        InvalidAmount = 10 "invalid_amount",
        /// Wager: `currency` is no active ISO 4217 code.
        UnknownCurrency = 11 "unknown_currency",
        /// Wager: `occurred_at` lies after the broker's receive time by more than is allowed.
        OccurredInFuture = 12 "occurred_in_future",
        /// Wager: the session's interaction was accepted before, or is older than what is remembered.
        DuplicateInteraction = 13 "duplicate_interaction",
        /// Wager: no location.
        LocationMissing = 14 "location_missing",
        /// Wager: the location was checked too long before the event.
        LocationStale = 15 "location_stale",
        /// Wager: the place cannot be told finely enough.
        LocationUncertain = 16 "location_uncertain",
        /// Wager: the claimed and the measured place exclude each other.
        LocationConflict = 17 "location_conflict",
        /// Wager: too far from the session's last place for the time between.
        ImpossibleTravel = 18 "impossible_travel",
        /// Wager: the jurisdiction, or the operator in it, is not permitted.
        JurisdictionBlocked = 19 "jurisdiction_blocked",
        /// Wager: the terms know no such game.
        UnknownGame = 20 "unknown_game",
        /// Hit: unreadable, named twice, of no such level, or of a pool that the wager takes no part in.
        HitRefused = 21 "hit_refused",
    }
}

impl Reason {
    /// The stage that refuses for this reason.
    pub fn stage(self) -> StageName {
        match self {
            reason if reason <= Self::DuplicateInteraction => StageName::Validate,
            reason if reason <= Self::JurisdictionBlocked => StageName::Geofence,
            _ => StageName::Allocate,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_come_back() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(reason));
            assert_eq!(Reason::from_name(reason.as_str()), Some(reason));
        }
        for &stage in StageName::ALL {
            assert_eq!(StageName::from_code(stage.code()), Some(stage));
        }
        assert!(Reason::ALL.is_sorted(), "the order of the contract is the order of the type");
    }
}
