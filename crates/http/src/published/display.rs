//! How a search page shows a published retriever. Everything has a default but the title, the inputs and the fields that
//! are exposed; keys that are not known here are kept.

use crate::openapi::{any_object, maybe_object};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use strata_model::{Error, Fields, Result};
use utoipa::ToSchema;

pub const MAX_ICON_CHARS: usize = 300_000;
/// Largest configuration, in bytes of JSON.
const MAX_BYTES: usize = 4 << 20;
const MAX_PARTS: usize = 100;
const MAX_MARKDOWN_CHARS: usize = 50_000;

/// A field where null is the same as nothing.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DisplayConfig {
    pub title: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    logo_url: Option<String>,
    /// Base64, at best as a data URI.
    #[serde(default)]
    #[schema(max_length = 300000)]
    icon_base64: Option<String>,
    #[serde(default)]
    seo: Option<SEOConfig>,
    #[serde(default, deserialize_with = "or_default")]
    markdowns: Vec<MarkdownContent>,
    #[serde(default, deserialize_with = "or_default")]
    theme: ThemeConfig,
    inputs: Vec<InputRenderingConfig>,
    #[serde(default, deserialize_with = "or_default")]
    layout: LayoutConfig,
    /// Paths of the fields that the public sees; `*` stands for all that are a document's own.
    #[schema(min_items = 1)]
    exposed_fields: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    components: ComponentsConfig,
    #[serde(default, deserialize_with = "or_default")]
    field_config: std::collections::BTreeMap<String, FieldConfig>,
    #[serde(default)]
    custom_cta: Option<CustomCTA>,
    #[serde(default, deserialize_with = "or_default")]
    external_links: Vec<ExternalLink>,
    #[serde(default)]
    template_type: Option<String>,
    #[serde(default)]
    field_mappings: Option<std::collections::BTreeMap<String, String>>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    extensions: Option<Map<String, Value>>,
    #[serde(default)]
    #[schema(schema_with = maybe_object)]
    retriever_config: Option<Map<String, Value>>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SEOConfig {
    #[schema(max_length = 60)]
    meta_title: Option<String>,
    #[schema(max_length = 160)]
    meta_description: Option<String>,
    #[serde(deserialize_with = "or_default")]
    keywords: Vec<String>,
    og_image_url: Option<String>,
    #[schema(max_length = 200)]
    og_image_alt: Option<String>,
    og_type: String,
    twitter_card: String,
    twitter_site: Option<String>,
    twitter_creator: Option<String>,
    robots: String,
    canonical_url: Option<String>,
    site_name: String,
    author: Option<String>,
    locale: String,
    logo_url: Option<String>,
    favicon_url: Option<String>,
    /// `type` and what else JSON-LD takes.
    #[schema(schema_with = any_object)]
    structured_data: Map<String, Value>,
}

impl Default for SEOConfig {
    fn default() -> Self {
        Self {
            meta_title: None,
            meta_description: None,
            keywords: Vec::new(),
            og_image_url: None,
            og_image_alt: None,
            og_type: "website".into(),
            twitter_card: "summary_large_image".into(),
            twitter_site: None,
            twitter_creator: None,
            robots: "index, follow".into(),
            canonical_url: None,
            site_name: "Strata".into(),
            author: None,
            locale: "en_US".into(),
            logo_url: None,
            favicon_url: None,
            structured_data: Map::from_iter([("type".to_owned(), "WebApplication".into())]),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct MarkdownContent {
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(min_length = 1, max_length = 50000)]
    content: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ThemeConfig {
    primary_color: String,
    secondary_color: Option<String>,
    font_family: String,
    background_color: String,
    text_color: String,
    heading_font_family: Option<String>,
    surface_color: Option<String>,
    muted_color: Option<String>,
    border_color: Option<String>,
    border_radius: Option<String>,
    card_style: Option<String>,
    card_hover_effect: Option<String>,
}

impl Default for ThemeConfig {
    fn default() -> Self {
        Self {
            primary_color: "#007AFF".into(),
            secondary_color: None,
            font_family: "system-ui, -apple-system, sans-serif".into(),
            background_color: "#FFFFFF".into(),
            text_color: "#374151".into(),
            heading_font_family: None,
            surface_color: None,
            muted_color: None,
            border_color: None,
            border_radius: Some("12px".into()),
            card_style: Some("elevated".into()),
            card_hover_effect: Some("lift".into()),
        }
    }
}

/// An input of the retriever as the page shows it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct InputRenderingConfig {
    field_name: String,
    /// `{type, required, default, …}`, as in the retriever's `input_schema`.
    #[schema(schema_with = any_object)]
    field_schema: Map<String, Value>,
    #[serde(default = "text")]
    input_type: String,
    label: String,
    #[serde(default)]
    placeholder: Option<String>,
    #[serde(default)]
    helper_text: Option<String>,
    #[serde(default)]
    suggestions: Option<Vec<String>>,
    #[serde(default = "yes")]
    required: bool,
    #[serde(default)]
    order: u32,
}

fn text() -> String {
    "text".into()
}

fn yes() -> bool {
    true
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct LayoutConfig {
    mode: String,
    #[schema(minimum = 1, maximum = 6)]
    columns: u32,
    gap: String,
    full_width: bool,
}

impl Default for LayoutConfig {
    fn default() -> Self {
        Self { mode: "grid".into(), columns: 3, gap: "16px".into(), full_width: false }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ComponentsConfig {
    show_hero: bool,
    show_search: bool,
    show_filters: bool,
    show_results_header: bool,
    result_layout: String,
    result_card: Option<ResultCardProperties>,
}

impl Default for ComponentsConfig {
    fn default() -> Self {
        Self {
            show_hero: true,
            show_search: true,
            show_filters: false,
            show_results_header: true,
            result_layout: "grid".into(),
            result_card: None,
        }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ResultCardProperties {
    layout: String,
    show_thumbnail: bool,
    thumbnail_aspect_ratio: String,
    thumbnail_fit: String,
    show_score: bool,
    #[schema(minimum = 1)]
    truncate_title: Option<u32>,
    #[schema(minimum = 1)]
    truncate_description: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    field_order: Vec<String>,
    show_find_similar: bool,
    card_click_action: String,
    thumbnail_field: Option<String>,
    title_field: Option<String>,
    card_fields: Option<Vec<String>>,
    modal_fields: Option<Vec<String>>,
    card_style: Option<String>,
}

impl Default for ResultCardProperties {
    fn default() -> Self {
        Self {
            layout: "vertical".into(),
            show_thumbnail: true,
            thumbnail_aspect_ratio: "16/9".into(),
            thumbnail_fit: "cover".into(),
            show_score: false,
            truncate_title: None,
            truncate_description: None,
            field_order: Vec::new(),
            show_find_similar: false,
            card_click_action: "viewDetails".into(),
            thumbnail_field: None,
            title_field: None,
            card_fields: None,
            modal_fields: None,
            card_style: Some("default".into()),
        }
    }
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FieldConfig {
    format: FieldFormatType,
    #[serde(default, deserialize_with = "or_default")]
    format_options: FieldFormatOptions,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FieldFormatType {
    Text,
    Image,
    Date,
    Number,
    Url,
    Boolean,
    Array,
    Object,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct FieldFormatOptions {
    label: Option<String>,
    show_empty: bool,
    #[schema(minimum = 1)]
    truncate_chars: Option<u32>,
    #[schema(minimum = 1)]
    width: Option<u32>,
    #[schema(minimum = 1)]
    height: Option<u32>,
    lazy_load: bool,
    aspect_ratio: Option<String>,
    object_fit: String,
    date_format: String,
    decimals: Option<u32>,
    prefix: Option<String>,
    suffix: Option<String>,
    open_in_new_tab: bool,
    show_domain: bool,
    true_label: String,
    false_label: String,
    separator: String,
    #[schema(minimum = 1)]
    max_items: Option<u32>,
}

impl Default for FieldFormatOptions {
    fn default() -> Self {
        Self {
            label: None,
            show_empty: true,
            truncate_chars: None,
            width: None,
            height: None,
            lazy_load: true,
            aspect_ratio: None,
            object_fit: "cover".into(),
            date_format: "relative".into(),
            decimals: None,
            prefix: None,
            suffix: None,
            open_in_new_tab: true,
            show_domain: false,
            true_label: "Yes".into(),
            false_label: "No".into(),
            separator: ", ".into(),
            max_items: None,
        }
    }
}

/// A button that opens a text.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct CustomCTA {
    #[schema(min_length = 1, max_length = 50)]
    label: String,
    #[schema(min_length = 1, max_length = 50000)]
    markdown_content: String,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExternalLink {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    #[schema(min_length = 1, max_length = 2048)]
    url: String,
}

/// Checks a configuration and completes it with its defaults.
pub fn checked(sent: Fields) -> Result<Fields> {
    let size = serde_json::to_string(&sent).map_err(Error::internal)?.len();
    if size > MAX_BYTES {
        return Err(Error::invalid("display_config", format!("has {size} bytes; at most {MAX_BYTES} are kept")));
    }
    let read: DisplayConfig = serde_path_to_error::deserialize(Value::Object(sent.clone()))
        .map_err(|error| crate::extract::wrong_type(error, "display_config").placed())?;
    read.check().map_err(|error| error.under("display_config"))?;
    let Value::Object(mut complete) = serde_json::to_value(read).map_err(Error::internal)? else {
        return Err(Error::internal("a display configuration is no object"));
    };
    for (key, value) in sent {
        complete.entry(key).or_insert(value);
    }
    Ok(complete)
}

/// Puts the places of an error below `display_config`, where they are not yet.
trait Placed {
    fn placed(self) -> Self;
}

impl Placed for Error {
    fn placed(self) -> Self {
        match self {
            Self::Invalid(list) if list.iter().any(|e| e.field == "display_config") => Self::Invalid(list),
            other => other.under("display_config"),
        }
    }
}

/// A text that has a least and a most number of characters.
fn sized(at: &str, text: &str, least: usize, most: usize) -> Result<()> {
    match (least..=most).contains(&text.chars().count()) {
        true => Ok(()),
        false => Err(Error::invalid(at, format!("must have {least} to {most} characters"))),
    }
}

fn bounded(at: String, number: Option<u32>, least: u32, most: u32) -> Result<()> {
    match number.is_none_or(|number| (least..=most).contains(&number)) {
        true => Ok(()),
        false => Err(Error::invalid(at, format!("must be from {least} to {most}"))),
    }
}

impl DisplayConfig {
    fn check(&self) -> Result<()> {
        sized("title", &self.title, 1, 500)?;
        let icon = self.icon_base64.as_deref().unwrap_or_default();
        sized("icon_base64", icon, 0, MAX_ICON_CHARS)?;
        let parts = [
            ("inputs", self.inputs.len()),
            ("markdowns", self.markdowns.len()),
            ("external_links", self.external_links.len()),
        ];
        if let Some((at, _)) = parts.iter().find(|(_, count)| *count > MAX_PARTS) {
            return Err(Error::invalid(*at, format!("are at most {MAX_PARTS}")));
        }
        if let Some(seo) = &self.seo {
            sized("seo.meta_title", seo.meta_title.as_deref().unwrap_or_default(), 0, 60)?;
            sized("seo.meta_description", seo.meta_description.as_deref().unwrap_or_default(), 0, 160)?;
            sized("seo.og_image_alt", seo.og_image_alt.as_deref().unwrap_or_default(), 0, 200)?;
        }
        for (i, markdown) in self.markdowns.iter().enumerate() {
            sized(&format!("markdowns.{i}.title"), &markdown.title, 1, 200)?;
            sized(&format!("markdowns.{i}.content"), &markdown.content, 1, MAX_MARKDOWN_CHARS)?;
        }
        for (i, link) in self.external_links.iter().enumerate() {
            sized(&format!("external_links.{i}.name"), &link.name, 1, 100)?;
            sized(&format!("external_links.{i}.url"), &link.url, 1, 2048)?;
        }
        if let Some(cta) = &self.custom_cta {
            sized("custom_cta.label", &cta.label, 1, 50)?;
            sized("custom_cta.markdown_content", &cta.markdown_content, 1, MAX_MARKDOWN_CHARS)?;
        }
        bounded("layout.columns".into(), Some(self.layout.columns), 1, 6)?;
        for (i, input) in self.inputs.iter().enumerate() {
            input.check().map_err(|error| error.under(&format!("inputs.{i}")))?;
        }
        for (name, field) in &self.field_config {
            let options = &field.format_options;
            let numbers = [
                ("truncate_chars", options.truncate_chars),
                ("width", options.width),
                ("height", options.height),
                ("max_items", options.max_items),
            ];
            for (key, number) in numbers {
                bounded(format!("field_config.{name}.format_options.{key}"), number, 1, u32::MAX)?;
            }
        }
        let card = self.components.result_card.as_ref();
        let cuts = card.map(|card| [("truncate_title", card.truncate_title), ("truncate_description", card.truncate_description)]);
        for (key, number) in cuts.into_iter().flatten() {
            bounded(format!("components.result_card.{key}"), number, 1, u32::MAX)?;
        }
        Ok(())
    }
}

/// Types that an input of a retriever has.
const TYPES: [&str; 16] = [
    "string",
    "number",
    "integer",
    "float",
    "boolean",
    "object",
    "array",
    "date",
    "datetime",
    "text",
    "image",
    "audio",
    "video",
    "pdf",
    "excel",
    "document_reference",
];

impl InputRenderingConfig {
    fn check(&self) -> Result<()> {
        sized("field_name", &self.field_name, 1, 255)?;
        let kind = self.field_schema.get("type").and_then(Value::as_str).unwrap_or_default();
        match TYPES.contains(&kind) {
            true => Ok(()),
            false => Err(Error::invalid("field_schema.type", format!("must be one of {}", TYPES.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({
            "title": "Books",
            "inputs": [{ "field_name": "query", "field_schema": { "type": "text" }, "label": "Search" }],
            "exposed_fields": ["title"],
        })
    }

    fn place(config: Value) -> String {
        match checked(config.as_object().unwrap().clone()) {
            Err(Error::Invalid(list)) => list[0].field.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn defaults_are_filled_in_and_unknown_keys_kept() {
        let mut config = minimal();
        config["theme"] = json!({ "primary_color": "red" });
        config["seo"] = json!({ "structured_data": { "type": "WebPage", "name": "x" } });
        config["own"] = json!({ "a": 1 });
        config["markdowns"] = Value::Null;
        let complete = Value::Object(checked(config.as_object().unwrap().clone()).unwrap());
        assert_eq!((&complete["theme"]["primary_color"], &complete["theme"]["border_radius"]), (&json!("red"), &json!("12px")));
        assert_eq!((&complete["layout"]["columns"], &complete["inputs"][0]["required"]), (&json!(3), &json!(true)));
        assert_eq!((&complete["own"]["a"], &complete["seo"]["structured_data"]["name"]), (&json!(1), &json!("x")));
        assert_eq!(complete["markdowns"], json!([]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let with = |at: &str, value: Value| {
            let mut config = minimal();
            config[at] = value;
            place(config)
        };
        assert_eq!(with("theme", json!({ "primary_color": 1 })), "display_config.theme.primary_color");
        assert_eq!(with("layout", json!({ "columns": 7 })), "display_config.layout.columns");
        assert_eq!(with("external_links", json!([{ "name": "", "url": "x" }])), "display_config.external_links.0.name");
        assert_eq!(with("seo", json!({ "meta_title": "x".repeat(61) })), "display_config.seo.meta_title");
        assert_eq!(with("inputs", json!([{ "field_name": "q", "label": "Q" }])), "display_config.inputs.0.field_schema");
        let colour = json!([{ "field_name": "q", "label": "Q", "field_schema": { "type": "colour" } }]);
        assert_eq!(with("inputs", colour), "display_config.inputs.0.field_schema.type");
        assert_eq!(with("icon_base64", json!("x".repeat(MAX_ICON_CHARS + 1))), "display_config.icon_base64");
        let mut config = minimal();
        config.as_object_mut().unwrap().remove("title");
        assert_eq!(place(config), "display_config.title");
    }
}
