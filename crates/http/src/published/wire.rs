//! Publications as requests and answers write them.

use super::display::{self, DisplayConfig, MAX_ICON_CHARS};
use crate::openapi::{maybe_object, time};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strata_engine::published::{self, Published, PublishedChange, RateLimits, Settings};
use strata_model::{Error, Fields, Result};
use utoipa::ToSchema;

const MAX_RESULTS: i64 = 1_000;

#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitTier {
    /// 60 requests a minute, 1,000 an hour, 10,000 a day; 500 an hour of one address.
    #[default]
    Standard,
    /// 300 a minute, 10,000 an hour, 100,000 a day; 1,000 an hour of one address.
    Elevated,
    /// 1,000 a minute, 50,000 an hour, 500,000 a day; 5,000 an hour of one address.
    Enterprise,
    Unlimited,
}

/// How often the public may ask. What is left out is as the tier has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RateLimitConfig {
    /// Whether requests are limited at all.
    enabled: bool,
    tier: RateLimitTier,
    #[schema(minimum = 1)]
    requests_per_minute: Option<i64>,
    #[schema(minimum = 1)]
    requests_per_hour: Option<i64>,
    #[schema(minimum = 1)]
    requests_per_day: Option<i64>,
    /// Most hits on a page.
    #[schema(minimum = 1, maximum = 1000)]
    max_results_per_query: i64,
    /// Whether each address is limited too.
    enable_ip_limits: bool,
    #[schema(minimum = 1)]
    max_requests_per_ip_hour: Option<i64>,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        (&RateLimits::default()).into()
    }
}

impl From<&RateLimits> for RateLimitConfig {
    fn from(limits: &RateLimits) -> Self {
        Self {
            enabled: limits.enabled,
            tier: match limits.tier {
                published::Tier::Standard => RateLimitTier::Standard,
                published::Tier::Elevated => RateLimitTier::Elevated,
                published::Tier::Enterprise => RateLimitTier::Enterprise,
                published::Tier::Unlimited => RateLimitTier::Unlimited,
            },
            requests_per_minute: limits.requests_per_minute.map(i64::from),
            requests_per_hour: limits.requests_per_hour.map(i64::from),
            requests_per_day: limits.requests_per_day.map(i64::from),
            max_results_per_query: limits.max_results_per_query as i64,
            enable_ip_limits: limits.enable_ip_limits,
            max_requests_per_ip_hour: limits.max_requests_per_ip_hour.map(i64::from),
        }
    }
}

impl RateLimitConfig {
    fn read(self) -> Result<RateLimits> {
        let count = |at: &str, number: Option<i64>| match number.map(u32::try_from) {
            None => Ok(None),
            Some(Ok(number)) if number >= 1 => Ok(Some(number)),
            Some(_) => {
                Err(Error::invalid(format!("rate_limit_config.{at}"), format!("must be from 1 to {}", u32::MAX)))
            }
        };
        if !(1..=MAX_RESULTS).contains(&self.max_results_per_query) {
            let message = format!("must be from 1 to {MAX_RESULTS}");
            return Err(Error::invalid("rate_limit_config.max_results_per_query", message));
        }
        Ok(RateLimits {
            enabled: self.enabled,
            tier: match self.tier {
                RateLimitTier::Standard => published::Tier::Standard,
                RateLimitTier::Elevated => published::Tier::Elevated,
                RateLimitTier::Enterprise => published::Tier::Enterprise,
                RateLimitTier::Unlimited => published::Tier::Unlimited,
            },
            requests_per_minute: count("requests_per_minute", self.requests_per_minute)?,
            requests_per_hour: count("requests_per_hour", self.requests_per_hour)?,
            requests_per_day: count("requests_per_day", self.requests_per_day)?,
            max_results_per_query: self.max_results_per_query as usize,
            enable_ip_limits: self.enable_ip_limits,
            max_requests_per_ip_hour: count("max_requests_per_ip_hour", self.max_requests_per_ip_hour)?,
        })
    }
}

/// How to publish a retriever. All may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct PublishRetrieverRequest {
    /// What the public name is made of where that is left out; else the retriever's name is.
    #[schema(max_length = 100)]
    pub display_name: Option<String>,
    /// Stands in the URL; unique in the server.
    #[schema(min_length = 3, max_length = 50, pattern = "^[a-z0-9][a-z0-9-]*[a-z0-9]$")]
    pub public_name: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    #[schema(max_length = 300000)]
    icon_base64: Option<String>,
    /// Without one, the retriever's own is taken, or else one is made of its inputs that exposes all fields.
    #[schema(value_type = Option<DisplayConfig>)]
    display_config: Option<Fields>,
    rate_limit_config: Option<RateLimitConfig>,
    /// The organization's secret that holds the password.
    password_secret_name: Option<String>,
    /// Whether the public sees how the retriever works: its stages, collections and template. True where it is left out.
    include_metadata: Option<bool>,
    tags: Option<Vec<String>>,
    #[schema(max_length = 50)]
    category: Option<String>,
}

impl PublishRetrieverRequest {
    pub fn has_display(&self) -> bool {
        self.display_config.is_some()
    }

    /// The settings. `own` is the display configuration where the request has none.
    pub fn settings(self, own: Fields) -> Result<Settings> {
        at_most("display_name", self.display_name.as_deref(), 100)?;
        at_most("description", self.description.as_deref(), 500)?;
        at_most("icon_base64", self.icon_base64.as_deref(), MAX_ICON_CHARS)?;
        at_most("category", self.category.as_deref(), 50)?;
        Ok(Settings {
            description: self.description,
            icon_base64: self.icon_base64,
            display_config: display::checked(self.display_config.unwrap_or(own))?,
            rate_limit_config: self.rate_limit_config.unwrap_or_default().read()?,
            password_secret_name: self.password_secret_name.filter(|name| !name.is_empty()),
            include_metadata: self.include_metadata.unwrap_or(true),
            tags: self.tags.unwrap_or_default(),
            category: self.category,
        })
    }
}

/// What to change. What is left out, or null, stays; an empty text takes `description`, `icon_base64`, `category` or
/// `password_secret_name` away.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(default)]
pub struct UpdatePublishedRetrieverRequest {
    #[schema(value_type = Option<DisplayConfig>)]
    display_config: Option<Fields>,
    rate_limit_config: Option<RateLimitConfig>,
    /// The organization's secret that holds the password. Keys that the old password gave stop working.
    password_secret_name: Option<String>,
    /// False shuts the public out and keeps the name.
    is_active: Option<bool>,
    tags: Option<Vec<String>>,
    #[schema(max_length = 50)]
    category: Option<String>,
    #[schema(max_length = 500)]
    description: Option<String>,
    #[schema(max_length = 300000)]
    icon_base64: Option<String>,
    include_metadata: Option<bool>,
    /// Cannot be changed, and is refused.
    public_name: Option<String>,
}

impl UpdatePublishedRetrieverRequest {
    pub fn change(self) -> Result<PublishedChange> {
        if self.public_name.is_some() {
            let message = "cannot be changed; unpublish the retriever and publish it under another name";
            return Err(Error::invalid("public_name", message));
        }
        at_most("description", self.description.as_deref(), 500)?;
        at_most("icon_base64", self.icon_base64.as_deref(), MAX_ICON_CHARS)?;
        at_most("category", self.category.as_deref(), 50)?;
        let text = |value: Option<String>| value.map(|text| (!text.is_empty()).then_some(text));
        Ok(PublishedChange {
            description: text(self.description),
            icon_base64: text(self.icon_base64),
            display_config: self.display_config.map(display::checked).transpose()?,
            rate_limit_config: self.rate_limit_config.map(RateLimitConfig::read).transpose()?,
            password_secret_name: text(self.password_secret_name),
            include_metadata: self.include_metadata,
            is_active: self.is_active,
            tags: self.tags,
            category: text(self.category),
        })
    }
}

fn at_most(at: &str, text: Option<&str>, most: usize) -> Result<()> {
    match text.is_none_or(|text| text.chars().count() <= most) {
        true => Ok(()),
        false => Err(Error::invalid(at, format!("must have at most {most} characters"))),
    }
}

/// What a retriever was published as.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublishRetrieverResponse {
    #[schema(example = "pub_0a1b2c3d4e5f6g7h")]
    pub public_id: String,
    pub retriever_id: String,
    pub public_name: String,
    /// Where the public finds it: its configuration; `/execute` below it executes it.
    pub public_url: String,
    /// Leads to `public_url`.
    pub short_url: String,
    /// Executes this retriever and nothing else. Needed by nobody while there is no password.
    pub public_api_key: Option<String>,
}

/// A retriever as its owner sees it published.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublishedRetrieverResponse {
    pub retriever_id: String,
    pub public_id: String,
    pub public_name: String,
    pub public_url: String,
    pub description: Option<String>,
    pub icon_base64: Option<String>,
    /// Null where the password's secret is not in the vault any more.
    pub public_api_key: Option<String>,
    #[schema(value_type = DisplayConfig)]
    pub display_config: Fields,
    pub rate_limit_config: RateLimitConfig,
    pub password_protected: bool,
    pub password_secret_name: Option<String>,
    pub include_metadata: bool,
    pub is_active: bool,
    /// `stages`, `collections` and `capabilities`, as the public sees them.
    #[schema(schema_with = maybe_object)]
    pub retriever_metadata: Option<Map<String, Value>>,
    pub tags: Vec<String>,
    pub category: Option<String>,
    #[schema(schema_with = time)]
    pub created_at: String,
    #[schema(schema_with = time)]
    pub updated_at: String,
}

impl PublishedRetrieverResponse {
    pub fn new(published: Published, base: &str, public_api_key: Option<String>, metadata: Option<Fields>) -> Self {
        let settings = &published.settings;
        Self {
            public_url: published.url(base),
            password_protected: published.has_password(),
            rate_limit_config: (&settings.rate_limit_config).into(),
            description: settings.description.clone(),
            icon_base64: settings.icon_base64.clone(),
            display_config: settings.display_config.clone(),
            password_secret_name: settings.password_secret_name.clone(),
            include_metadata: settings.include_metadata,
            tags: settings.tags.clone(),
            category: settings.category.clone(),
            public_api_key,
            retriever_metadata: metadata,
            retriever_id: published.retriever_id,
            public_id: published.public_id,
            public_name: published.public_name,
            is_active: published.is_active,
            created_at: published.created_at,
            updated_at: published.updated_at,
        }
    }
}
