//! Vectors into clusters. The algorithms are those of `linfa-clustering`, `hdbscan` and `kodama`; this says how they are
//! set up, and gives their answers one shape.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict, Transformer};
use linfa_clustering::{Dbscan, GaussianMixtureModel, KMeans};
use linfa_linalg::eigh::Eigh;
use ndarray::{Array1, Array2, Axis};
use strata_model::{Error, Result};

/// Most vectors that are clustered at once: some algorithms compare each with each.
pub const MAX_POINTS: usize = 5_000;
/// Most vectors whose affinities are decomposed; of more, as many evenly spaced ones are, and each of the others joins the
/// cluster of the nearest of them.
pub const MAX_SPECTRAL_POINTS: usize = 500;
/// Neighbours of a point in the graph of affinities.
const SPECTRAL_NEIGHBOURS: usize = 10;
/// Rounds after which an algorithm that has not settled stops.
const MAX_ROUNDS: u64 = 100;
/// Added to the variances of a mixture, so that few points in many dimensions have a model at all.
const MIXTURE_FLOOR: f64 = 1e-3;

/// Dimensions of a mixture; points of more are projected first, since each round costs the square of them.
const MIXTURE_DIMENSIONS: usize = 24;
/// Points, clusters and squared dimensions of a mixture, multiplied: some tenths of a second a round.
const MAX_MIXTURE_STEPS: usize = 150_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    KMeans,
    Hdbscan,
    Dbscan,
    Agglomerative,
    GaussianMixture,
    Spectral,
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
    if points.iter().any(|point| point.len() != points[0].len()) {
        return Err(Error::invalid("feature_uri", "names vectors of different lengths, which have no clusters"));
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
            Algorithm::Spectral => spectral(&unit, wanted, MAX_SPECTRAL_POINTS)?,
        }
    };
    let labels = by_size(&labels);
    let centroids = centroids(points, &labels);
    Ok(Clustering { labels, centroids })
}

/// The point at length 1.
fn unit<X: Copy + Into<f64>>(point: &[X]) -> Vec<f64> {
    let length = point.iter().map(|x| (*x).into().powi(2)).sum::<f64>().sqrt();
    point.iter().map(|x| if length > 0.0 { (*x).into() / length } else { 0.0 }).collect()
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

/// A mixture of normal distributions, each with a covariance of its own, in at most [`MIXTURE_DIMENSIONS`].
fn mixture(points: &[Vec<f64>], wanted: usize) -> Result<Vec<Option<usize>>> {
    let points = projected(points);
    let dimensions = points.first().map_or(0, Vec::len);
    if points.len() * wanted * dimensions * dimensions > MAX_MIXTURE_STEPS {
        let (count, most) = (points.len(), MAX_MIXTURE_STEPS / (points.len() * dimensions * dimensions));
        return Err(Error::invalid("n_clusters", format!("must be at most {most} for a mixture of {count} vectors")));
    }
    let data = DatasetBase::from(matrix(&points)?);
    let params = GaussianMixtureModel::params(wanted).reg_covariance(MIXTURE_FLOOR).max_n_iterations(MAX_ROUNDS);
    let model = params.fit(&data).map_err(unfit)?;
    Ok(all(&model.predict(data.records())))
}

/// Points in fewer dimensions, about as far from each other as before (Johnson and Lindenstrauss, 1984), by signs that
/// are the same each time (Achlioptas, 2003).
fn projected(points: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let dimensions = points.first().map_or(0, Vec::len);
    if dimensions <= MIXTURE_DIMENSIONS {
        return points.to_vec();
    }
    let mut chance = fastrand::Rng::with_seed(dimensions as u64);
    let scale = (MIXTURE_DIMENSIONS as f64).sqrt().recip();
    let signs: Vec<Vec<f64>> = (0..MIXTURE_DIMENSIONS)
        .map(|_| (0..dimensions).map(|_| if chance.bool() { scale } else { -scale }).collect())
        .collect();
    let place = |point: &Vec<f64>| signs.iter().map(|row| row.iter().zip(point).map(|(s, x)| s * x).sum()).collect();
    points.iter().map(place).collect()
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

/// Clusters of a graph in which each point is joined to its nearest ones (Ng, Jordan and Weiss, 2001, "On spectral
/// clustering"), with scales of their own (Zelnik-Manor and Perona, 2004).
fn spectral(points: &[Vec<f64>], wanted: usize, most: usize) -> Result<Vec<Option<usize>>> {
    if points.len() <= most {
        return spectral_of(points, wanted);
    }
    let chosen: Vec<Vec<f64>> = (0..most).map(|i| points[i * points.len() / most].clone()).collect();
    let labels = spectral_of(&chosen, wanted)?;
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let label = |point: &Vec<f64>| {
        let nearest = (0..chosen.len()).max_by(|a, b| near(point, &chosen[*a]).total_cmp(&near(point, &chosen[*b])));
        nearest.and_then(|place| labels[place])
    };
    Ok(points.iter().map(label).collect())
}

fn spectral_of(points: &[Vec<f64>], wanted: usize) -> Result<Vec<Option<usize>>> {
    let laplacian = laplacian(&affinities(points));
    let (_, vectors) = laplacian.eigh().map_err(unfit)?;
    // Where values are equal the vectors do not stand in the order of the values, so each tells its own.
    let images = laplacian.dot(&vectors);
    let value = |place: usize| vectors.column(place).dot(&images.column(place));
    let mut order: Vec<(f64, usize)> = (0..points.len()).map(|place| (value(place), place)).collect();
    if order.iter().any(|(value, _)| !value.is_finite()) {
        return Err(unfit("the affinities have no eigenvectors"));
    }
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let row = |point: usize| {
        let row: Vec<f64> = order.iter().take(wanted).map(|(_, place)| vectors[[point, *place]]).collect();
        unit(&row)
    };
    let rows: Vec<Vec<f64>> = (0..points.len()).map(row).collect();
    k_means(&rows, wanted)
}

/// How near each two points are, from 0 to 1; 0 unless one is among the nearest of the other.
fn affinities(points: &[Vec<f64>]) -> Array2<f64> {
    let count = points.len();
    let mut distances = Array2::zeros((count, count));
    for i in 0..count {
        for j in i + 1..count {
            distances[[i, j]] = distance(&points[i], &points[j]);
            distances[[j, i]] = distances[[i, j]];
        }
    }
    let neighbours = SPECTRAL_NEIGHBOURS.min(count - 1);
    let nearest: Vec<Vec<usize>> = (0..count)
        .map(|i| {
            let mut others: Vec<usize> = (0..count).filter(|j| *j != i).collect();
            others.sort_by(|a, b| distances[[i, *a]].total_cmp(&distances[[i, *b]]));
            others.truncate(neighbours);
            others
        })
        .collect();
    let scale = |i: usize| nearest[i].last().map_or(0.0, |j| distances[[i, *j]]).max(1e-9);
    let mut affinities = Array2::zeros((count, count));
    for (i, near) in nearest.iter().enumerate() {
        for j in near {
            let affinity = (-distances[[i, *j]].powi(2) / (scale(i) * scale(*j))).exp();
            affinities[[i, *j]] = affinity;
            affinities[[*j, i]] = affinity;
        }
    }
    affinities
}

/// The normalised Laplacian of a graph: `I - D^(-1/2) A D^(-1/2)`.
fn laplacian(affinities: &Array2<f64>) -> Array2<f64> {
    let roots: Vec<f64> = affinities.sum_axis(Axis(1)).iter().map(|degree| degree.max(1e-12).sqrt()).collect();
    Array2::from_shape_fn(affinities.dim(), |(i, j)| {
        f64::from(u8::from(i == j)) - affinities[[i, j]] / (roots[i] * roots[j])
    })
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
            (Algorithm::Spectral, Some(2)),
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
        for algorithm in
            [Algorithm::KMeans, Algorithm::Agglomerative, Algorithm::Dbscan, Algorithm::Hdbscan, Algorithm::Spectral]
        {
            assert_eq!(cluster(&same, algorithm, sizes).unwrap().labels.len(), 10, "{algorithm:?}");
        }
        assert!(matches!(cluster(&vec![vec![1.0]; MAX_POINTS + 1], Algorithm::KMeans, sizes), Err(Error::TooLarge(_))));
    }

    #[test]
    fn a_mixture_of_many_dimensions_is_bounded() {
        let mut chance = fastrand::Rng::with_seed(1);
        let around = |at: usize, chance: &mut fastrand::Rng| {
            (0..384).map(|i| f32::from(u8::from(i == at)) + (chance.f32() - 0.5) * 0.05).collect::<Vec<f32>>()
        };
        let points: Vec<Vec<f32>> = (0..300).map(|i| around(i % 2, &mut chance)).collect();
        let sizes = |clusters| Sizes { clusters: Some(clusters), least_members: 3 };
        let made = cluster(&points, Algorithm::GaussianMixture, sizes(2)).unwrap();
        assert!((0..300).all(|i| made.labels[i] == made.labels[i % 2]) && made.labels[0] != made.labels[1]);
        let many: Vec<Vec<f32>> = (0..MAX_POINTS).map(|i| around(i % 9, &mut chance)).collect();
        let refused = cluster(&many, Algorithm::GaussianMixture, sizes(100)).unwrap_err();
        assert!(refused.to_string().contains("at most 52"), "{refused}");
    }

    #[test]
    fn vectors_of_different_lengths_are_refused() {
        let points = [vec![1.0, 0.0], vec![1.0], vec![0.5, 0.5]];
        let sizes = Sizes { clusters: Some(2), least_members: 2 };
        for algorithm in [Algorithm::KMeans, Algorithm::Hdbscan, Algorithm::Dbscan] {
            assert!(matches!(cluster(&points, algorithm, sizes), Err(Error::Invalid(_))), "{algorithm:?}");
        }
    }

    /// Two rings around one axis, as directions in space: no mean tells them apart.
    fn rings(each: usize) -> Vec<Vec<f32>> {
        let around = |i: usize, height: f32| {
            let angle = i as f32 / each as f32 * std::f32::consts::TAU;
            vec![angle.cos(), angle.sin(), height]
        };
        (0..each).map(|i| around(i, 0.2)).chain((0..each).map(|i| around(i, 1.5))).collect()
    }

    #[test]
    fn a_graph_finds_rings_that_means_do_not() {
        let sizes = Sizes { clusters: Some(2), least_members: 3 };
        let apart = |labels: &[Option<usize>]| {
            let (outer, inner) = labels.split_at(labels.len() / 2);
            let is_one = |ring: &[Option<usize>]| ring.iter().all(|label| *label == ring[0] && label.is_some());
            is_one(outer) && is_one(inner) && outer[0] != inner[0]
        };
        assert!(apart(&cluster(&rings(60), Algorithm::Spectral, sizes).unwrap().labels));
        let many: Vec<Vec<f64>> = rings(200).iter().map(|point| unit(point)).collect();
        assert!(apart(&spectral(&many, 2, 150).unwrap()), "of 400 points 150 are decomposed");
        let means = cluster(&rings(60), Algorithm::KMeans, sizes).unwrap();
        assert!(means.labels[..60].iter().any(|label| *label != means.labels[0]));
    }
}
