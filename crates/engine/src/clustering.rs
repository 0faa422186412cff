//! Vectors into clusters. The algorithms are those of `linfa-clustering`, `hdbscan` and `kodama`; this says how they are
//! set up, and gives their answers one shape.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict, Transformer};
use linfa_clustering::{Dbscan, GaussianMixtureModel, KMeans};
use ndarray::{Array1, Array2};
use strata_model::{Error, Result};

/// Most vectors that are clustered at once: some algorithms compare each with each.
pub const MAX_POINTS: usize = 5_000;
/// Rounds after which an algorithm that has not settled stops.
const MAX_ROUNDS: u64 = 100;
/// Added to the variances of a mixture, so that few points in many dimensions have a model at all.
const MIXTURE_FLOOR: f64 = 1e-3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    KMeans,
    Hdbscan,
    Dbscan,
    Agglomerative,
    GaussianMixture,
}

/// How many clusters, where the algorithm must be told, and how small they may be, where it finds that itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Where it is `None`: a tenth of the points, from 2 to 8.
    pub clusters: Option<usize>,
    /// Lowered to a quarter of the points where there are few.
    pub least_members: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Each point's cluster, from 0; `None` for a point of none. The largest cluster is number 0.
    pub labels: Vec<Option<usize>>,
    /// The mean of each cluster's points.
    pub centroids: Vec<Vec<f32>>,
}

/// Clusters points of the same length. All are scaled to length 1 first, so that what counts is their direction.
///
/// Errors: `TooLarge` for more than [`MAX_POINTS`]; `Invalid` where the algorithm finds no answer.
pub fn cluster(points: &[Vec<f32>], algorithm: Algorithm, sizes: Sizes) -> Result<Clustering> {
    if points.len() > MAX_POINTS {
        return Err(Error::TooLarge(format!(
            "{} vectors are to be clustered, at most {MAX_POINTS} can be",
            points.len()
        )));
    }
    if points.is_empty() {
        return Ok(Clustering { labels: Vec::new(), centroids: Vec::new() });
    }
    let unit: Vec<Vec<f64>> = points.iter().map(|point| unit(point)).collect();
    let count = points.len();
    let wanted = sizes.clusters.unwrap_or((count / 10).clamp(2, 8)).clamp(1, count);
    let least = sizes.least_members.min(count / 4).max(2);
    let labels = if count < 3 {
        vec![Some(0); count]
    } else {
        match algorithm {
            Algorithm::KMeans => k_means(&unit, wanted)?,
            Algorithm::GaussianMixture => mixture(&unit, wanted)?,
            Algorithm::Agglomerative => agglomerative(&unit, wanted),
            Algorithm::Dbscan => dbscan(&unit, least)?,
            Algorithm::Hdbscan => hdbscan(&unit, least)?,
        }
    };
    let labels = by_size(&labels);
    let centroids = centroids(points, &labels);
    Ok(Clustering { labels, centroids })
}

fn unit(point: &[f32]) -> Vec<f64> {
    let length = point.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
    point.iter().map(|x| if length > 0.0 { f64::from(*x) / length } else { 0.0 }).collect()
}

fn matrix(points: &[Vec<f64>]) -> Result<Array2<f64>> {
    let shape = (points.len(), points.first().map_or(0, Vec::len));
    Array2::from_shape_vec(shape, points.concat()).map_err(Error::internal)
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::invalid("algorithm", format!("finds no clusters here: {error}"))
}

fn all(labels: &Array1<usize>) -> Vec<Option<usize>> {
    labels.iter().map(|label| Some(*label)).collect()
}

fn k_means(points: &[Vec<f64>], wanted: usize) -> Result<Vec<Option<usize>>> {
    let data = DatasetBase::from(matrix(points)?);
    let model = KMeans::params(wanted).max_n_iterations(MAX_ROUNDS).fit(&data).map_err(unfit)?;
    Ok(all(&model.predict(data.records())))
}

fn mixture(points: &[Vec<f64>], wanted: usize) -> Result<Vec<Option<usize>>> {
    let data = DatasetBase::from(matrix(points)?);
    let params = GaussianMixtureModel::params(wanted).reg_covariance(MIXTURE_FLOOR).max_n_iterations(MAX_ROUNDS);
    let model = params.fit(&data).map_err(unfit)?;
    Ok(all(&model.predict(data.records())))
}

fn agglomerative(points: &[Vec<f64>], wanted: usize) -> Vec<Option<usize>> {
    let count = points.len();
    let mut distances = Vec::with_capacity(count * (count - 1) / 2);
    for (i, a) in points.iter().enumerate() {
        distances.extend(points[i + 1..].iter().map(|b| distance(a, b)));
    }
    let tree = kodama::linkage(&mut distances, count, kodama::Method::Average);
    // Joining stops when as many clusters are left as are wanted. A cluster that a step makes has the number after the
    // points and the clusters before it.
    let mut members: Vec<Vec<usize>> = (0..count).map(|point| vec![point]).collect();
    for step in tree.steps().iter().take(count - wanted) {
        let mut joined = std::mem::take(&mut members[step.cluster1]);
        joined.append(&mut members[step.cluster2]);
        members.push(joined);
    }
    let mut labels = vec![None; count];
    for (label, own) in members.iter().filter(|own| !own.is_empty()).enumerate() {
        own.iter().for_each(|point| labels[*point] = Some(label));
    }
    labels
}

fn dbscan(points: &[Vec<f64>], least: usize) -> Result<Vec<Option<usize>>> {
    // Near is what nine of ten points have as many neighbours in as a cluster has members.
    let mut reach: Vec<f64> = points
        .iter()
        .map(|a| {
            let mut distances: Vec<f64> = points.iter().map(|b| distance(a, b)).collect();
            distances.sort_by(f64::total_cmp);
            distances[least.min(distances.len() - 1)]
        })
        .collect();
    reach.sort_by(f64::total_cmp);
    let near = reach[(reach.len() * 9 / 10).min(reach.len() - 1)].max(1e-9);
    let labels = Dbscan::params(least).tolerance(near).transform(&matrix(points)?).map_err(unfit)?;
    Ok(labels.to_vec())
}

fn hdbscan(points: &[Vec<f64>], least: usize) -> Result<Vec<Option<usize>>> {
    let params = hdbscan::HdbscanHyperParams::builder().min_cluster_size(least).min_samples(least.min(3)).build();
    let labels = hdbscan::Hdbscan::new(points, params).cluster().map_err(unfit)?;
    Ok(labels.into_iter().map(|label| usize::try_from(label).ok()).collect())
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>().sqrt()
}

/// The same clusters, numbered by size, equal ones as they first appear.
fn by_size(labels: &[Option<usize>]) -> Vec<Option<usize>> {
    let count = labels.iter().flatten().max().map_or(0, |most| most + 1);
    let mut order: Vec<(usize, usize, usize)> = (0..count)
        .map(|label| {
            let first = labels.iter().position(|l| *l == Some(label)).unwrap_or(labels.len());
            (labels.iter().filter(|l| **l == Some(label)).count(), first, label)
        })
        .collect();
    order.retain(|(size, ..)| *size > 0);
    order.sort_by_key(|(size, first, _)| (std::cmp::Reverse(*size), *first));
    let renamed = |label: usize| order.iter().position(|(.., old)| *old == label);
    labels.iter().map(|label| label.and_then(renamed)).collect()
}

fn centroids(points: &[Vec<f32>], labels: &[Option<usize>]) -> Vec<Vec<f32>> {
    let count = labels.iter().flatten().max().map_or(0, |most| most + 1);
    let length = points.first().map_or(0, Vec::len);
    let mut sums = vec![(vec![0.0_f32; length], 0.0_f32); count];
    for (point, label) in points.iter().zip(labels) {
        if let Some(label) = label {
            sums[*label].0.iter_mut().zip(point).for_each(|(sum, x)| *sum += x);
            sums[*label].1 += 1.0;
        }
    }
    sums.into_iter().map(|(sum, members)| sum.into_iter().map(|x| x / members).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve points in one direction, eight in another, and one in a third.
    fn points() -> Vec<Vec<f32>> {
        let mut chance = fastrand::Rng::with_seed(384);
        let mut around = |middle: [f32; 3]| middle.map(|x| x + (chance.f32() - 0.5) * 0.1).to_vec();
        let mut all: Vec<Vec<f32>> = (0..12).map(|_| around([1.0, 0.0, 0.0])).collect();
        all.extend((0..8).map(|_| around([0.0, 1.0, 0.0])));
        all.push(vec![0.0, 0.0, 1.0]);
        all
    }

    #[test]
    fn every_algorithm_tells_two_directions_apart() {
        let sizes = |clusters| Sizes { clusters, least_members: 3 };
        for (algorithm, clusters) in [
            (Algorithm::KMeans, Some(3)),
            (Algorithm::GaussianMixture, Some(3)),
            (Algorithm::Agglomerative, Some(3)),
            (Algorithm::Dbscan, None),
            (Algorithm::Hdbscan, None),
        ] {
            let made = cluster(&points(), algorithm, sizes(clusters)).unwrap();
            assert!(made.labels[..12].iter().all(|label| *label == made.labels[0]), "{algorithm:?}: {:?}", made.labels);
            assert!(
                made.labels[12..20].iter().all(|label| *label == made.labels[12]),
                "{algorithm:?}: {:?}",
                made.labels
            );
            assert_ne!(made.labels[0], made.labels[12], "{algorithm:?}");
            assert_eq!(made.labels[0], Some(0), "the largest is the first");
            assert_ne!(made.labels[20], made.labels[0], "{algorithm:?}");
            assert!((made.centroids[0][0] - 1.0).abs() < 0.05, "{algorithm:?}: {:?}", made.centroids);
        }
    }

    #[test]
    fn few_points_are_one_cluster_and_none_are_none() {
        let sizes = Sizes { clusters: None, least_members: 5 };
        assert_eq!(cluster(&points()[..2], Algorithm::Hdbscan, sizes).unwrap().labels, [Some(0), Some(0)]);
        assert!(cluster(&[], Algorithm::KMeans, sizes).unwrap().labels.is_empty());
        let same = vec![vec![1.0, 0.0]; 10];
        for algorithm in [Algorithm::KMeans, Algorithm::Agglomerative, Algorithm::Dbscan, Algorithm::Hdbscan] {
            assert_eq!(cluster(&same, algorithm, sizes).unwrap().labels.len(), 10, "{algorithm:?}");
        }
        assert!(matches!(cluster(&vec![vec![1.0]; MAX_POINTS + 1], Algorithm::KMeans, sizes), Err(Error::TooLarge(_))));
    }
}
