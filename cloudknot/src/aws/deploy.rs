//! The AWS services that only a deploy queries, and the account that it queries them for.

use aws_config::SdkConfig;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sts as sts;

use super::{Aws, choose_profile, client, env_var, load_config};
use crate::error::{Error, ErrorKind, Result};
use crate::settings::{account::Account, config::Config};

pub(crate) mod cloudformation;
pub(crate) mod ec2;
pub(crate) mod ecr;
pub(crate) mod efs;
pub(crate) mod iam;
pub(crate) mod kms;
pub(crate) mod machines;
pub(crate) mod permissions;
mod query;
pub(crate) mod quotas;
pub(crate) mod s3;

impl Aws {
    /// Loads the configuration from the environment, the profile and `config.toml`. The settings in `account` take
    /// precedence over all of them.
    ///
    /// # Errors
    /// Returns an error if no region is configured, or `config.toml` cannot be read. Credentials are resolved only when
    /// they are needed.
    pub(crate) async fn load(account: &Account) -> Result<Self> {
        let defaults = Config::read()?;
        let account_profile = account.profile.clone();
        let profile = account_profile.clone().or_else(|| env_var("AWS_PROFILE")).or(defaults.profile);
        let explicit_region =
            account.region.clone().or_else(|| env_var("AWS_REGION")).or_else(|| env_var("AWS_DEFAULT_REGION"));
        let (config, region) = load_config(profile.as_deref(), explicit_region.or(defaults.region)).await;
        let other_profiles = profiles_without(profile.as_deref()).await;
        // Without a chosen profile, the environment may have credentials all the same.
        if let (Some(profile), Some(others)) = (&profile, &other_profiles)
            && (account_profile.is_some() || region.is_none())
        {
            let message = format!("cannot find the AWS profile `{profile}`");
            return Err(Error::new(ErrorKind::Credentials, message).with_hint(choose_profile(others)));
        }
        let Some(region) = region else {
            let suffix = profile.map_or_else(String::new, |profile| format!(" for the profile `{profile}`"));
            return Err(Error::new(ErrorKind::Config, format!("no AWS region is set{suffix}"))
                .with_hint("set one: `cargo knot configure --region eu-central-1`, --region, or AWS_REGION"));
        };
        let config = match account_profile {
            // The SDK prefers keys in the environment to those of a profile, even if the profile was named explicitly.
            Some(name) => with_profile(&config, &name),
            None => config,
        };
        Ok(Self { config, region, profile, other_profiles })
    }

    /// Returns this configuration with at most `attempts` attempts per request, for callers that can do without a response.
    pub(crate) fn with_attempts(&self, attempts: u32) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(attempts);
        Self { config: self.config.to_builder().retry_config(retries).build(), ..self.clone() }
    }

    /// Returns the twelve-digit ID of the caller's account.
    pub(crate) async fn account(&self) -> Result<String> {
        Ok(self.caller().await?.0)
    }

    /// Returns the account ID and the ARN of the caller.
    pub(crate) async fn caller(&self) -> Result<(String, String)> {
        let response = client!(self, sts).get_caller_identity().send().await;
        let response = response.map_err(|error| self.failed("get the identity of the caller from AWS", error))?;
        Ok((response.account.unwrap_or_default(), response.arn.unwrap_or_default()))
    }
}

/// Returns the profiles on this machine, if the chosen one is not among them. Files that cannot be read are reported by the SDK.
async fn profiles_without(chosen: Option<&str>) -> Option<Vec<String>> {
    let chosen = chosen?;
    let profiles = Config::profiles().await.ok()?;
    (!profiles.iter().any(|profile| profile == chosen)).then_some(profiles)
}

/// Returns this configuration with the credentials of this profile and no others.
fn with_profile(config: &SdkConfig, name: &str) -> SdkConfig {
    let mut provider = ProviderConfig::without_region().with_region(config.region().cloned());
    if let Some(client) = config.http_client() {
        provider = provider.with_http_client(client);
    }
    let credentials = ProfileFileCredentialsProvider::builder().profile_name(name).configure(&provider).build();
    config.to_builder().credentials_provider(SharedCredentialsProvider::new(credentials)).build()
}
