//! The validate stage: decides what is a wager, and cuts the ingress of a partition into frames.

pub mod json;
