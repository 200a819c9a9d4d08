//! Which account of AWS, and where, as a builder is told: the same for a Pars and a Knot.

/// Who asks AWS and in which region, where that is not what the environment and `config.toml` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
}
