//! The wire types of an aggregation. The engine reads the operations; these say which types their parts have.

use crate::{error::ApiError, openapi::any_object};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};
use strata_engine::objects::{Aggregation, Group};
use strata_model::{Error, filter::Filter};
use utoipa::ToSchema;

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectAggregationRequest {
    group_by: Vec<GroupByField>,
    #[schema(min_items = 1)]
    aggregations: Vec<AggregationOperation>,
    /// Only objects that fit.
    filters: Option<Value>,
    /// Only groups whose values fit.
    having: Option<Vec<HavingCondition>>,
    /// An array field of which every element counts as an object of its own.
    unwind: Option<String>,
    range_buckets: Option<Vec<RangeBucket>>,
    /// Alias of a group or of an operation.
    sort_by: Option<String>,
    /// `asc` or `desc`, the default.
    sort_direction: Option<String>,
    #[schema(minimum = 1)]
    limit: Option<u64>,
}

/// Objects with equal values of the field are one group.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GroupByField {
    field: String,
    alias: Option<String>,
    /// `year`, `month`, `week`, `day`, `hour`, `minute` or `second`: the start of the unit that a time lies in.
    date_trunc: Option<String>,
    /// `year`, `month`, `week`, `day`, `dayOfWeek`, `dayOfYear`, `hour`, `minute` or `second`: a part of a time.
    date_part: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AggregationOperation {
    /// `count`, `count_distinct`, `sum`, `avg`, `min`, `max`, `first`, `last`, `push`, `add_to_set`, `percentile`, `median`,
    /// `stddev` or `variance`. Percentiles lie between the closest numbers in proportion; deviation and variance are those of
    /// all numbers, not of a sample.
    function: String,
    field: Option<String>,
    alias: String,
    /// The field of `count_distinct`.
    distinct_field: Option<String>,
    /// Which one `percentile` takes; 50 is the median.
    #[schema(minimum = 0, maximum = 100)]
    percentile: Option<f64>,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HavingCondition {
    /// Alias of an operation or of a group.
    field: String,
    /// `eq`, `ne`, `gt`, `gte`, `lt` or `lte`.
    operator: String,
    value: Value,
}

/// Groups a number field by ranges.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RangeBucket {
    field: String,
    /// Ascending.
    #[schema(value_type = Vec<f64>, min_items = 1)]
    boundaries: Vec<Number>,
    /// Name of the group of values outside all ranges.
    default_bucket: Option<String>,
}

impl ObjectAggregationRequest {
    pub(super) fn read(&self) -> Result<(Filter, Aggregation), ApiError> {
        let filter = Filter::parse(self.filters.as_ref().unwrap_or(&Value::Null), "filters")?;
        let body = serde_json::to_value(self).map_err(Error::internal)?;
        Ok((filter, Aggregation::parse(&body)?))
    }
}

#[derive(Debug, Serialize, ToSchema)]
pub struct ObjectAggregationResponse {
    pub results: Vec<AggregationResult>,
    /// Groups before the limit.
    pub total_groups: u64,
}

#[derive(Debug, Serialize, ToSchema)]
pub struct AggregationResult {
    /// Values by alias of `group_by`.
    #[schema(schema_with = any_object)]
    pub group: Map<String, Value>,
    /// Values by alias of `aggregations`.
    #[schema(schema_with = any_object)]
    pub metrics: Map<String, Value>,
}

impl From<Group> for AggregationResult {
    fn from(group: Group) -> Self {
        Self { group: group.group, metrics: group.metrics }
    }
}
