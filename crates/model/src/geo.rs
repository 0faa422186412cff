//! Places on the earth, and areas that hold some of them: what the geo operators of filters compare.
//!
//! Points are in degrees, on a sphere. The sides of polygons are straight in latitude and longitude and do not cross the
//! 180th meridian; boxes may.

use crate::{Error, Result, limits};
use serde_json::Value;

/// Mean radius of the earth (IUGG), in metres.
const EARTH_RADIUS: f64 = 6_371_008.8;

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// -90 to 90.
    pub lat: f64,
    /// -180 to 180.
    pub lon: f64,
}

impl Point {
    /// `{"lat": …, "lon": …}` as a field holds it; `None` for anything else.
    pub fn of(value: &Value) -> Option<Self> {
        let (lat, lon) = (value.get("lat")?.as_f64()?, value.get("lon")?.as_f64()?);
        ((-90.0..=90.0).contains(&lat) && (-180.0..=180.0).contains(&lon)).then_some(Self { lat, lon })
    }

    fn parse(value: Option<&Value>, at: &str) -> Result<Self> {
        let shape = "must be `{\"lat\": …, \"lon\": …}`, -90 to 90 and -180 to 180 degrees";
        value.and_then(Self::of).ok_or_else(|| Error::invalid(at, shape))
    }

    /// Metres along the great circle (haversine formula).
    pub fn distance(self, other: Self) -> f64 {
        let (a, b) = (self.lat.to_radians(), other.lat.to_radians());
        let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
        let h = half(other.lat - self.lat) + a.cos() * b.cos() * half(other.lon - self.lon);
        2.0 * EARTH_RADIUS * h.sqrt().min(1.0).asin()
    }
}

/// A part of the earth's surface. Circles and boxes hold their edge.
#[derive(Debug, Clone, PartialEq)]
pub enum Area {
    Circle {
        center: Point,
        metres: f64,
    },
    /// Crosses the 180th meridian where the left side lies east of the right one.
    Box {
        top_left: Point,
        bottom_right: Point,
    },
    Polygon {
        exterior: Vec<Point>,
        interiors: Vec<Vec<Point>>,
    },
}

impl Area {
    /// Reads `{"center": {"lat": …, "lon": …}, "radius": metres}`.
    pub fn circle(value: &Value, at: &str) -> Result<Self> {
        let center = Point::parse(value.get("center"), &format!("{at}.center"))?;
        let metres = value.get("radius").and_then(Value::as_f64).filter(|metres| *metres > 0.0);
        let metres =
            metres.ok_or_else(|| Error::invalid(format!("{at}.radius"), "must be a number of metres above 0"))?;
        Ok(Self::Circle { center, metres })
    }

    /// Reads `{"top_left": {"lat": …, "lon": …}, "bottom_right": {…}}`.
    pub fn rectangle(value: &Value, at: &str) -> Result<Self> {
        let top_left = Point::parse(value.get("top_left"), &format!("{at}.top_left"))?;
        let bottom_right = Point::parse(value.get("bottom_right"), &format!("{at}.bottom_right"))?;
        if top_left.lat < bottom_right.lat {
            return Err(Error::invalid(format!("{at}.top_left.lat"), "must not be below that of `bottom_right`"));
        }
        Ok(Self::Box { top_left, bottom_right })
    }

    /// Reads `{"exterior": {"points": [{"lat": …, "lon": …}, …]}, "interiors": [{"points": […]}, …]}`.
    pub fn polygon(value: &Value, at: &str) -> Result<Self> {
        let mut left = limits::MAX_POLYGON_POINTS;
        let exterior = ring(value.get("exterior"), &format!("{at}.exterior"), &mut left)?;
        let interiors = match value.get("interiors") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => {
                let read = |(i, hole)| ring(Some(hole), &format!("{at}.interiors.{i}"), &mut left);
                list.iter().enumerate().map(read).collect::<Result<_>>()?
            }
            Some(_) => {
                return Err(Error::invalid(format!("{at}.interiors"), "must be an array of `{\"points\": […]}`"));
            }
        };
        Ok(Self::Polygon { exterior, interiors })
    }

    pub fn holds(&self, point: Point) -> bool {
        match self {
            Self::Circle { center, metres } => center.distance(point) <= *metres,
            Self::Box { top_left, bottom_right } => {
                let between = |lon: f64| match top_left.lon <= bottom_right.lon {
                    true => (top_left.lon..=bottom_right.lon).contains(&lon),
                    false => lon >= top_left.lon || lon <= bottom_right.lon,
                };
                // 180 and -180 are the same meridian.
                (bottom_right.lat..=top_left.lat).contains(&point.lat)
                    && (between(point.lon) || (point.lon.abs() == 180.0 && between(-point.lon)))
            }
            Self::Polygon { exterior, interiors } => {
                is_inside(exterior, point) && !interiors.iter().any(|hole| is_inside(hole, point))
            }
        }
    }
}

/// The corners of a polygon or a hole, each once; the first may be repeated as the last.
fn ring(value: Option<&Value>, at: &str, left: &mut usize) -> Result<Vec<Point>> {
    let at = format!("{at}.points");
    let points = value.and_then(|ring| ring.get("points")).and_then(Value::as_array);
    let points = points.ok_or_else(|| Error::invalid(&at, "must be an array of points"))?;
    *left = left.checked_sub(points.len()).ok_or_else(|| {
        Error::invalid(&at, format!("a polygon has at most {} points in all", limits::MAX_POLYGON_POINTS))
    })?;
    let each = points.iter().enumerate().map(|(i, point)| Point::parse(Some(point), &format!("{at}.{i}")));
    let mut corners = each.collect::<Result<Vec<_>>>()?;
    if corners.len() > 1 && corners.first() == corners.last() {
        corners.pop();
    }
    match corners.len() {
        0..3 => Err(Error::invalid(at, "must have 3 different points or more")),
        _ => Ok(corners),
    }
}

/// The even-odd rule: whether a ray from the point to the east crosses the ring an odd number of times.
fn is_inside(ring: &[Point], point: Point) -> bool {
    let sides = ring.iter().zip(ring.iter().cycle().skip(1));
    let crossed = sides.filter(|(a, b)| {
        (a.lat > point.lat) != (b.lat > point.lat)
            && point.lon < (b.lon - a.lon) * (point.lat - a.lat) / (b.lat - a.lat) + a.lon
    });
    crossed.count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const BERLIN: Point = Point { lat: 52.52, lon: 13.405 };
    const PARIS: Point = Point { lat: 48.8566, lon: 2.3522 };
    const SUVA: Point = Point { lat: -18.1416, lon: 178.4419 };
    const APIA: Point = Point { lat: -13.8333, lon: -171.7667 };

    fn at(lat: f64, lon: f64) -> Point {
        Point { lat, lon }
    }

    #[test]
    fn distances_are_those_of_the_great_circle() {
        let near = |metres: f64, wanted: f64| (metres - wanted).abs() < 1000.0;
        assert!(near(BERLIN.distance(PARIS), 877_464.0), "{}", BERLIN.distance(PARIS));
        assert!(near(SUVA.distance(APIA), 1_150_703.0), "{}", SUVA.distance(APIA));
        assert!(near(at(90.0, 0.0).distance(at(-90.0, 50.0)), std::f64::consts::PI * EARTH_RADIUS));
        assert_eq!(PARIS.distance(PARIS), 0.0);
    }

    #[test]
    fn a_circle_holds_what_is_near() {
        let circle = |radius: f64| {
            let value = json!({ "center": { "lat": BERLIN.lat, "lon": BERLIN.lon }, "radius": radius });
            Area::circle(&value, "v").unwrap()
        };
        assert!(circle(880_000.0).holds(PARIS) && !circle(870_000.0).holds(PARIS));
        assert!(circle(1.0).holds(BERLIN));
    }

    #[test]
    fn a_box_may_cross_the_180th_meridian() {
        let area = |left: f64, right: f64| {
            let value = json!({ "top_left": { "lat": 0, "lon": left }, "bottom_right": { "lat": -20, "lon": right } });
            Area::rectangle(&value, "v").unwrap()
        };
        let (pacific, rest) = (area(170.0, -170.0), area(-170.0, 170.0));
        assert!(pacific.holds(SUVA) && pacific.holds(APIA) && !rest.holds(SUVA) && !rest.holds(APIA));
        assert!(!pacific.holds(at(-10.0, 0.0)) && rest.holds(at(-10.0, 0.0)) && !rest.holds(at(10.0, 0.0)));
        assert!(area(170.0, 180.0).holds(at(-10.0, -180.0)), "the same meridian");
        assert!(rest.holds(at(-20.0, 170.0)), "an edge");
    }

    #[test]
    fn a_polygon_holds_what_its_holes_do_not() {
        let square = |half: i32| {
            let corners = [(-half, -half), (-half, half), (half, half), (half, -half)];
            json!({ "points": corners.map(|(lat, lon)| json!({ "lat": lat, "lon": lon })) })
        };
        let whole = Area::polygon(&json!({ "exterior": square(10) }), "v").unwrap();
        let holed = Area::polygon(&json!({ "exterior": square(10), "interiors": [square(5)] }), "v").unwrap();
        for (point, in_whole, in_holed) in
            [(at(0.0, 0.0), true, false), (at(7.0, -7.0), true, true), (at(11.0, 0.0), false, false)]
        {
            assert_eq!((whole.holds(point), holed.holds(point)), (in_whole, in_holed), "{point:?}");
        }
        let mut closed = square(10);
        let first = closed["points"][0].clone();
        closed["points"].as_array_mut().unwrap().push(first);
        assert_eq!(Area::polygon(&json!({ "exterior": closed }), "v").unwrap(), whole);
    }

    #[test]
    fn refusals_name_the_part() {
        let point = json!({ "lat": 1, "lon": 1 });
        let many = vec![point.clone(); limits::MAX_POLYGON_POINTS + 1];
        let cases = [
            (Area::circle(&json!({ "radius": 1 }), "v"), "v.center"),
            (Area::circle(&json!({ "center": { "lat": 91, "lon": 0 }, "radius": 1 }), "v"), "v.center"),
            (Area::circle(&json!({ "center": point, "radius": 0 }), "v"), "v.radius"),
            (Area::circle(&json!("near"), "v"), "v.center"),
            (Area::rectangle(&json!({ "top_left": point }), "v"), "v.bottom_right"),
            (
                Area::rectangle(&json!({ "top_left": point, "bottom_right": { "lat": 2, "lon": 2 } }), "v"),
                "v.top_left.lat",
            ),
            (Area::polygon(&json!({}), "v"), "v.exterior.points"),
            (Area::polygon(&json!({ "exterior": { "points": [point, point] } }), "v"), "v.exterior.points"),
            (Area::polygon(&json!({ "exterior": { "points": [point, 7] } }), "v"), "v.exterior.points.1"),
            (Area::polygon(&json!({ "exterior": { "points": many } }), "v"), "v.exterior.points"),
        ];
        for (read, place) in cases {
            match read {
                Err(Error::Invalid(faults)) => assert_eq!(faults[0].field, place),
                other => panic!("{place}: {other:?}"),
            }
        }
    }
}
