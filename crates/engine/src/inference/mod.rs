//! Models asked by name: those of the registry, which run here, and those of providers, which speak OpenAI's protocol.
//!
//! A provider's model may stand wherever a text model of the registry may: its name is `provider/model`. What goes to a
//! provider goes through the one client for everything outside ([`crate::fetch`]). Keys come from the vault or from the
//! operator's settings and are in no answer, error or log.

mod ask;
mod client;
mod credentials;
mod embed;
mod generate;
mod inputs;
mod media;
mod models;
mod providers;

pub use ask::{Ask, LOCAL, Told};
pub(crate) use client::Patience;
pub use credentials::CREDENTIALS;
pub(crate) use credentials::secret_name;
pub use embed::Usage;
pub(crate) use embed::is_local;
pub(crate) use generate::{Form, Generated, Message, Prompt, Role};
pub use models::KnownModel;
pub(crate) use providers::Providers;
pub use providers::{DEFAULT_MAX_CHARS, Key, ProviderConfig, ProviderModel, ProviderTask};
pub use strata_infer::{InstallState, Runtime};
