//! What the public asks for: published retrievers by name, and the list of them.

use super::{Published, Use, public_url};
use crate::{Engine, listing::Page, protection::Admission};
use serde_json::Value;
use std::net::IpAddr;
use strata_model::{Error, Fields, Principal, Result};
use strata_store::catalog::publications::{self, Card};

/// Largest page whose retrievers come with their icons, which may have hundreds of kilobytes each.
const MAX_WITH_ICONS: usize = 100;

/// A published retriever in the list of all.
#[derive(Debug, Clone)]
pub struct PublicCard {
    pub public_name: String,
    pub public_url: String,
    pub is_active: bool,
    pub has_password: bool,
    /// `title`, `description`, `logo_url`, `og_image_url`, `external_links`.
    pub shown: Fields,
    pub icon_base64: Option<String>,
    pub created_at: String,
    pub updated_at: String,
}

/// How many retrievers the public may use, and how many of them have a password.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PublicCounts {
    pub active: usize,
    pub with_password: usize,
}

impl Engine {
    /// What is published, and active, under a public name or public id.
    pub async fn public_retriever(&self, name: &str) -> Result<Published> {
        let wanted = name.to_owned();
        let found = self.catalog.read(move |connection| publications::find(connection, &wanted)).await?;
        let row = found.filter(|row| row.active).ok_or_else(|| Error::missing("public retriever", name))?;
        Published::from_row(row)
    }

    /// Counts a request of the public by what the publication itself allows.
    pub fn admit(&self, published: &Published, what: Use, address: IpAddr) -> Admission {
        let (id, limits) = (&published.public_id, &published.settings.rate_limit_config);
        self.limiter.admit(id, what, limits, address, self.catalog.now_micros())
    }

    /// A page of what is published on this server and active, oldest first, that has `search` in its name, title or
    /// description. `owner` is shown what it has deactivated, too.
    pub async fn public_retrievers(
        &self,
        search: Option<&str>,
        owner: Option<Principal>,
        limit: usize,
        offset: usize,
    ) -> Result<(Page<PublicCard>, PublicCounts)> {
        let (needle, base) = (search.map(str::to_lowercase), self.config.public_url.clone());
        let read = self.catalog.read(move |connection| {
            let all = publications::cards(connection)?;
            let active = all.iter().filter(|card| card.active);
            let counts = PublicCounts {
                active: active.clone().count(),
                with_password: active.filter(|card| card.has_password).count(),
            };
            let is_shown = |card: &Card| card.active || owner.as_ref().is_some_and(|owner| owns(owner, card));
            let is_found = |card: &Card| needle.as_deref().is_none_or(|needle| has_text(card, needle));
            let found: Vec<Card> = all.into_iter().filter(is_shown).filter(is_found).collect();
            let total = found.len();
            let mut items = Vec::new();
            for card in found.into_iter().skip(offset).take(limit) {
                let icon_base64 = match limit <= MAX_WITH_ICONS {
                    true => publications::icon(connection, &card.public_id)?,
                    false => None,
                };
                items.push(PublicCard {
                    public_url: public_url(&base, &card.public_name),
                    public_name: card.public_name,
                    is_active: card.active,
                    has_password: card.has_password,
                    shown: card.shown,
                    icon_base64,
                    created_at: card.created_at,
                    updated_at: card.updated_at,
                });
            }
            Ok((Page { items, total }, counts))
        });
        read.await
    }
}

fn owns(owner: &Principal, card: &Card) -> bool {
    owner.organization_id == card.scope.organization_id && owner.may_enter(&card.scope.namespace_id)
}

fn has_text(card: &Card, needle: &str) -> bool {
    let text = |key: &str| card.shown.get(key).and_then(Value::as_str).unwrap_or_default();
    [card.public_name.as_str(), text("title"), text("description")].iter().any(|t| t.to_lowercase().contains(needle))
}
