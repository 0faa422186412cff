//! Whose key a provider is asked with: the one that the request or the collection names, else the organization's, else
//! the operator's. Keys of organizations lie in the vault; what is stored elsewhere is the name of a secret.

use super::providers::Provider;
use crate::{Engine, retrieval::missing_secret};
use serde_json::Value;
use strata_model::{Error, Fields, Principal, Result};
use strata_store::catalog::principals;

/// Key of an organization's body: names of providers to `{{SECRET.name}}`.
pub const CREDENTIALS: &str = "default_llm_credentials";

/// The secret that a text names, as `{{SECRET.name}}` or `${vault:name}`; `None` where it is anything else.
pub(crate) fn secret_name(text: &str) -> Option<&str> {
    let text = text.trim();
    let inner = text.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    let name = match inner {
        Some(inner) => {
            let (head, name) = inner.split_once('.')?;
            matches!(head.to_lowercase().as_str(), "secret" | "secrets").then_some(name)?
        }
        None => text.strip_prefix("${vault:")?.strip_suffix('}')?,
    };
    let name = name.trim();
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')).then_some(name)
}

impl Engine {
    /// The key to ask a provider with. `given` is a secret's name or a key itself, and wins.
    ///
    /// Errors: `Invalid` where a secret is named that is not there; `Unavailable` where the provider answers nobody
    /// without a key and there is none.
    pub(crate) async fn provider_key(
        &self,
        organization_id: &str,
        provider: &Provider,
        given: Option<&str>,
    ) -> Result<Option<String>> {
        if let Some(given) = given {
            return self.revealed(organization_id, given, "llm_api_key").await.map(Some);
        }
        let id = organization_id.to_owned();
        let organization = self.catalog.read(move |connection| principals::organization(connection, &id)).await?;
        let own = organization.body.get(CREDENTIALS).and_then(|all| all.get(&provider.name)).and_then(Value::as_str);
        if let Some(own) = own {
            return self.revealed(organization_id, own, CREDENTIALS).await.map(Some);
        }
        match &provider.key {
            Some(key) => Ok(Some(key.reveal().to_owned())),
            None if provider.needs_key => Err(Error::Unavailable(format!(
                "the provider `{0}` needs a key: name a secret as `{CREDENTIALS}.{0}` with PATCH /v1/organizations, or let the operator set one",
                provider.name
            ))),
            None => Ok(None),
        }
    }

    async fn revealed(&self, organization_id: &str, text: &str, at: &str) -> Result<String> {
        let Some(name) = secret_name(text) else { return Ok(text.to_owned()) };
        self.open_secret(organization_id, name).await?.ok_or_else(|| missing_secret(name, at))
    }

    /// Reads an organization's `default_llm_credentials` as clients send them: each a provider and the name of a
    /// secret. A key itself goes into the vault as `llm_{provider}`, and its name is what is answered and stored.
    pub async fn keep_credentials(&self, principal: &Principal, sent: Fields) -> Result<Fields> {
        let mut kept = Fields::new();
        for (provider, value) in sent {
            let at = format!("{CREDENTIALS}.{provider}");
            if self.providers.get(&provider).is_none() {
                let known = self.providers.names();
                return Err(Error::invalid(at, format!("`{provider}` is not a provider here; one of {known}")));
            }
            let Value::String(text) = value else { return Err(Error::invalid(at, "must be a text")) };
            let name = match secret_name(&text) {
                Some(name) => {
                    let found = self.open_secret(&principal.organization_id, name).await?;
                    found.ok_or_else(|| missing_secret(name, &at))?;
                    name.to_owned()
                }
                None if text.contains("{{") || text.trim().is_empty() => {
                    return Err(Error::invalid(at, "must name a secret as `{{SECRET.name}}`, or be a key"));
                }
                None => {
                    let name = format!("llm_{}", provider.replace('-', "_"));
                    match self.create_secret(principal, &name, text.trim()).await {
                        Err(Error::Conflict(_)) => self.update_secret(principal, &name, text.trim()).await?,
                        made => made?,
                    }
                    name
                }
            };
            kept.insert(provider, format!("{{{{SECRET.{name}}}}}").into());
        }
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_named_in_either_spelling() {
        for text in ["{{SECRET.key_1}}", "{{ secrets.key_1 }}", " ${vault:key_1} "] {
            assert_eq!(secret_name(text), Some("key_1"), "{text}");
        }
        for text in ["sk-123", "{{SECRET}}", "{{SECRET.}}", "{{INPUT.key}}", "{{SECRET.a b}}", "${vault:}", ""] {
            assert_eq!(secret_name(text), None, "{text}");
        }
    }
}
