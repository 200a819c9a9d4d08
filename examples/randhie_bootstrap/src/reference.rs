//! The same figures computed by others, in the order of [`crate::data::NAMES`]. DATA.md names the sources.

use crate::data::COEFFICIENTS;

/// Coefficients computed by Stata 11.
pub const COEFFICIENTS_BY_STATA: [f64; COEFFICIENTS] = [
    -0.052_535_114_675,
    -0.247_086_797_633,
    0.035_290_201_794,
    -0.034_577_506_45,
    0.271_713_973_711,
    0.033_941_474_461,
    -0.012_635_035_534,
    0.054_056_326_828,
    0.206_115_121_809,
    0.700_352_877_227,
];

/// Standard errors clustered by person, computed by statsmodels 0.15.0.
pub const CLUSTERED_ERRORS: [f64; COEFFICIENTS] = [
    0.011_029_696_089,
    0.041_213_394_122,
    0.007_183_072_052,
    0.006_387_573_952,
    0.050_634_193_177,
    0.002_557_120_237,
    0.034_156_692_537,
    0.067_281_898_600,
    0.125_936_262_712,
    0.044_895_174_850,
];
