//! AWS account and region, as given to the builder of a Pars or a Knot.

/// Profile and region to use in place of those from the environment and `config.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) profile: Option<String>,
    pub(crate) region: Option<String>,
}
