//! `cluster`: the working set by the direction of its vectors.

use super::mmr::{cosine, found_by};
use super::{Category, Draft, Run, Stage, StageDefinition, WorkingSet};
use crate::clustering::{self, Algorithm, Clustering, Sizes};
use crate::retrieval::params::{Params, Setting, choice, count, flag, text, value_or};
use crate::retrieval::{Hit, view};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};
use strata_model::{Error, Result};
use tokio::sync::Semaphore;

pub(super) const DEFINITION: StageDefinition = StageDefinition {
    stage_id: "cluster",
    aliases: &[],
    category: Category::Reduce,
    description: "Finds documents that resemble each other by their vectors and answers them together, or one of each cluster.",
    icon: "network",
    parameter_schema: schema,
    reads_collections: false,
    parse,
};

const ALGORITHMS: [(&str, Algorithm); 7] = [
    ("kmeans", Algorithm::KMeans),
    ("k_means", Algorithm::KMeans),
    ("hdbscan", Algorithm::Hdbscan),
    ("dbscan", Algorithm::Dbscan),
    ("agglomerative", Algorithm::Agglomerative),
    ("gaussian_mixture", Algorithm::GaussianMixture),
    ("spectral", Algorithm::Spectral),
];

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "algorithm": {
                "type": "string", "enum": ["kmeans", "hdbscan", "dbscan", "agglomerative", "gaussian_mixture", "spectral"], "default": "hdbscan",
                "description": format!("`hdbscan` and `dbscan` find how many clusters there are and leave out what belongs to none. `spectral` follows chains of neighbours; of more than {} documents it works on as many, and each of the others joins the cluster of the nearest of them.", clustering::MAX_SPECTRAL_POINTS),
            },
            "n_clusters": {"type": "integer", "minimum": 2, "maximum": 100, "description": "Of the others; a tenth of the documents, from 2 to 8, where left out."},
            "min_cluster_size": {"type": "integer", "minimum": 2, "maximum": 100, "default": 5, "description": "Least documents of a cluster that is found; fewer where there are few."},
            "feature_uri": {"type": "string", "description": "Feature of the vectors; that of the search that found the documents where left out."},
            "output_mode": {
                "type": "string", "enum": ["clusters", "labeled", "representatives"], "default": "clusters",
                "description": "`clusters` answers groups, `labeled` every document in its order with `cluster_id` and `cluster_score`, `representatives` the document nearest to the middle of each cluster.",
            },
            "include_centroids": {"type": "boolean", "default": true, "description": "Whether the stage's metadata has the middle of each cluster."},
            "max_members_per_cluster": {"type": "integer", "minimum": 1, "maximum": 500, "default": 50, "description": "Most documents of a group."},
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Clusters,
    Labeled,
    Representatives,
}

/// Clusterings under way at once, in the whole server.
static TURNS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(2)));

#[derive(Debug)]
struct Cluster {
    /// Place of `feature_uri`.
    feature_at: String,
    algorithm: Option<Setting<Algorithm>>,
    n_clusters: Option<Setting<usize>>,
    min_cluster_size: Option<Setting<usize>>,
    feature_uri: Option<Setting<String>>,
    mode: Option<Setting<Mode>>,
    include_centroids: Option<Setting<bool>>,
    max_members: Option<Setting<usize>>,
}

fn parse(_draft: Draft<'_>, mut params: Params<'_>) -> Result<Arc<dyn Stage>> {
    let algorithm = |value: &Value, at: &str| choice(value, at, &ALGORITHMS);
    let mode = |value: &Value, at: &str| {
        let known =
            [("clusters", Mode::Clusters), ("labeled", Mode::Labeled), ("representatives", Mode::Representatives)];
        choice(value, at, &known)
    };
    let stage = Cluster {
        feature_at: params.place("feature_uri"),
        algorithm: params.setting(&["algorithm"], algorithm)?,
        n_clusters: params.setting(&["n_clusters", "num_clusters"], count(2..=100))?,
        min_cluster_size: params.setting(&["min_cluster_size"], count(2..=100))?,
        feature_uri: params.setting(&["feature_uri", "embedding_field"], text)?,
        mode: params.setting(&["output_mode"], mode)?,
        include_centroids: params.setting(&["include_centroids"], flag)?,
        max_members: params.setting(&["max_members_per_cluster"], count(1..=500))?,
    };
    params.finish();
    Ok(Arc::new(stage))
}

impl Stage for Cluster {
    fn run<'a>(&'a self, run: &'a mut Run<'_>, set: WorkingSet) -> BoxFuture<'a, Result<WorkingSet>> {
        Box::pin(async move {
            let algorithm = value_or(self.algorithm.as_ref(), run.variables, Algorithm::Hdbscan)?;
            let mode = value_or(self.mode.as_ref(), run.variables, Mode::Clusters)?;
            let with_centroids = value_or(self.include_centroids.as_ref(), run.variables, true)?;
            let most = value_or(self.max_members.as_ref(), run.variables, 50)?;
            let sizes = Sizes {
                clusters: match &self.n_clusters {
                    Some(clusters) => clusters.value(run.variables)?,
                    None => None,
                },
                least_members: value_or(self.min_cluster_size.as_ref(), run.variables, 5)?,
            };
            let mut hits = run.read(set).await?;
            if hits.len() > clustering::MAX_POINTS {
                run.cut("clustered_documents", hits.len(), clustering::MAX_POINTS);
                hits.truncate(clustering::MAX_POINTS);
            }
            if algorithm == Algorithm::Spectral && hits.len() > clustering::MAX_SPECTRAL_POINTS {
                run.cut("spectral_documents", hits.len(), clustering::MAX_SPECTRAL_POINTS);
            }
            let vectors = self.vectors(run, &hits).await?;
            // What has no vector belongs to no cluster.
            let places: Vec<usize> = (0..hits.len()).filter(|place| vectors[*place].is_some()).collect();
            let points: Vec<Vec<f32>> = vectors.into_iter().flatten().collect();
            let turn = TURNS.clone().acquire_owned().await.map_err(Error::internal)?;
            let work = move || {
                // Held until the work ends, which may be after its time.
                let _turn = turn;
                clustering::cluster(&points, algorithm, sizes).map(|made| (made, points))
            };
            let (made, points) = tokio::task::spawn_blocking(work).await.map_err(Error::internal)??;
            let mut labels: Vec<Option<(usize, f64)>> = vec![None; hits.len()];
            for ((place, label), point) in places.iter().zip(&made.labels).zip(&points) {
                labels[*place] = label.map(|label| (label, cosine(point, &made.centroids[label])));
            }
            note(run, &hits, &labels, &made, with_centroids);
            Ok(WorkingSet::Read(answered(hits, &labels, mode, most)))
        })
    }

    fn feature_uris(&self) -> Vec<String> {
        self.feature_uri.iter().filter_map(Setting::literal).collect()
    }
}

impl Cluster {
    async fn vectors(&self, run: &mut Run<'_>, hits: &[Hit]) -> Result<Vec<Option<Vec<f32>>>> {
        if hits.is_empty() {
            return Ok(Vec::new());
        }
        let named = match &self.feature_uri {
            Some(uri) => uri.value(run.variables)?,
            None => None,
        };
        let Some(feature) = named.or_else(|| found_by(hits)) else {
            let reason = format!("stage `{}` has no search before it, so the feature must be named", run.stage_name);
            return Err(Error::invalid(&self.feature_at, reason));
        };
        run.vectors_of(hits, &feature).await
    }
}

/// Tells of the clusters in the stage's metadata.
fn note(run: &mut Run<'_>, hits: &[Hit], labels: &[Option<(usize, f64)>], made: &Clustering, with_centroids: bool) {
    let members = |label: usize| {
        let own = hits.iter().zip(labels).filter(move |(_, l)| l.is_some_and(|(own, _)| own == label));
        own.map(|(hit, _)| hit.document.document_id.as_str()).collect::<Vec<_>>()
    };
    let told = (0..made.centroids.len()).map(|label| {
        let members = members(label);
        let mut cluster = json!({"cluster_id": label, "member_count": members.len(), "members": members});
        if with_centroids {
            cluster["centroid"] = json!(made.centroids[label]);
        }
        cluster
    });
    run.metadata.insert("clusters".into(), told.collect());
    run.metadata.insert("outliers".into(), labels.iter().filter(|label| label.is_none()).count().into());
}

fn answered(hits: Vec<Hit>, labels: &[Option<(usize, f64)>], mode: Mode, most: usize) -> Vec<Hit> {
    let mut labeled: Vec<(Hit, Option<(usize, f64)>)> = hits.into_iter().zip(labels.iter().copied()).collect();
    for (hit, label) in &mut labeled {
        view::set(hit, "cluster_id", label.map_or(Value::Null, |(label, _)| label.into()));
        view::set(hit, "cluster_score", label.map_or(Value::Null, |(_, score)| score.into()));
    }
    if mode == Mode::Labeled {
        return labeled.into_iter().map(|(hit, _)| hit).collect();
    }
    let mut clusters: Vec<Vec<(Hit, f64)>> = Vec::new();
    for (hit, label) in labeled {
        let Some((label, score)) = label else { continue };
        clusters.resize_with(clusters.len().max(label + 1), Vec::new);
        clusters[label].push((hit, score));
    }
    let one = |(label, own): (usize, Vec<(Hit, f64)>)| match mode {
        Mode::Representatives => {
            let nearest = own.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
            nearest.map(|(hit, _)| hit).into_iter().collect::<Vec<_>>()
        }
        Mode::Clusters | Mode::Labeled => {
            own.into_iter().take(most).map(|(hit, _)| Hit { group: Some(label.into()), ..hit }).collect()
        }
    };
    clusters.into_iter().enumerate().flat_map(one).collect()
}
