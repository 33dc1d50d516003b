//! Plots of the samples, as SVG: bars of ratios for a group, and a curve for each series.

use std::{error::Error, ops::Range};

use plotters::{coord::Shift, prelude::*};

use crate::{
    Result,
    args::Group,
    samples::{NATIVE, Row, Sample, Spread, rows, sides},
};

pub(crate) struct Plot {
    pub(crate) name: String,
    pub(crate) svg: String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 900;
const CURVE_HEIGHT: u32 = 420;
const BAR: i32 = 10;
const GAP: i32 = 14;
/// Left of the bars, for the names of works; and above them, for the legend.
const NAMES: i32 = 380;
const HEAD: i32 = 40;
const COLOURS: [RGBColor; 5] = [
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
];

/// All that can be drawn of a group.
pub(crate) fn of(samples: &[Sample], group: Group) -> Result<Vec<Plot>> {
    let rows = rows(samples, group);
    let mut plots = Vec::new();
    let compared: Vec<_> = rows.iter().filter(|row| ratios(row).next().is_some()).collect();
    if !compared.is_empty() {
        plots.push(Plot { name: format!("{}.svg", group.name()), svg: bars(&compared, &sides(&rows))? });
    }
    let mut works: Vec<&str> = rows.iter().filter(|row| row.at.is_some()).map(|row| row.work).collect();
    works.dedup();
    for work in works {
        let name = format!("{}.svg", work.replace([',', ' '], "-").replace("--", "-"));
        plots.push(Plot { name, svg: curve(work, &points(&rows, work))? });
    }
    Ok(plots)
}

/// Of the sides that are compared with the native one.
fn ratios<'a>(row: &'a Row<'_>) -> impl Iterator<Item = (&'a str, Spread)> {
    let sides = sides(std::slice::from_ref(row));
    let others = sides.into_iter().filter(|side| *side != NATIVE);
    others.filter_map(|side| Some((side, row.ratio(side)?)))
}

/// A bar for each side: the median, and a line from the least to the greatest. Logarithmic: twice and half look alike.
fn bars(rows: &[&Row<'_>], sides: &[&str]) -> Result<String> {
    let others: Vec<_> = sides.iter().copied().filter(|side| *side != NATIVE).collect();
    let all: Vec<f64> =
        rows.iter().flat_map(|row| ratios(row)).flat_map(|(_, spread)| [spread.min, spread.max]).collect();
    let low = all.iter().copied().fold(0.5, f64::min).log10();
    let high = all.iter().copied().fold(2.0, f64::max).log10();
    let x = |ratio: f64| {
        let part = (ratio.log10() - low) / (high - low);
        NAMES + (part * f64::from(WIDTH as i32 - NAMES - 60)) as i32
    };
    let row_height = BAR * others.len() as i32 + GAP;
    let height = HEAD + row_height * rows.len() as i32 + GAP;
    draw((WIDTH, height as u32), |area| {
        let font = ("sans-serif", 12).into_font();
        for (nth, side) in others.iter().enumerate() {
            let left = 20 + nth as i32 * 160;
            area.draw(&Rectangle::new([(left, 14), (left + 12, 24)], colour(nth).filled()))?;
            area.draw(&Text::new((*side).to_owned(), (left + 18, 13), font.clone()))?;
        }
        for (nth, row) in rows.iter().enumerate() {
            let top = HEAD + nth as i32 * row_height;
            area.draw(&Text::new(row.title(), (10, top), font.clone()))?;
            for (side, Spread { min, median, max }) in ratios(row) {
                let place = others.iter().position(|other| *other == side).unwrap_or(0);
                let y = top + place as i32 * BAR;
                let ends = [x(1.0), x(median)];
                let bar = [(ends[0].min(ends[1]), y), (ends[0].max(ends[1]), y + BAR - 2)];
                area.draw(&Rectangle::new(bar, colour(place).filled()))?;
                area.draw(&PathElement::new(vec![(x(min), y + BAR / 2), (x(max), y + BAR / 2)], BLACK))?;
                area.draw(&Text::new(format!("{median:.2}"), (x(max.max(1.0)) + 4, y - 2), font.clone()))?;
            }
        }
        Ok(area.draw(&PathElement::new(vec![(x(1.0), HEAD - 6), (x(1.0), height)], BLACK))?)
    })
}

fn points(rows: &[Row<'_>], work: &str) -> Vec<(f64, Spread)> {
    let of_work = rows.iter().filter(|row| row.work == work);
    let point = |row: &Row<'_>| {
        let side = *sides(std::slice::from_ref(row)).first()?;
        // Nothing is on a logarithmic axis, too.
        Some((f64::from(row.at?.max(1)), row.spread(side)?))
    };
    of_work.filter_map(point).collect()
}

/// Microseconds against what grows, both logarithmic: medians, with a line from the least to the greatest.
fn curve(work: &str, points: &[(f64, Spread)]) -> Result<String> {
    let range = |values: &mut dyn Iterator<Item = f64>| -> Range<f64> {
        let (low, high) = values.fold((f64::MAX, 0.0), |(low, high), v| (v.min(low), v.max(high)));
        low.max(1e-3) * 0.7..high.max(1e-3) * 1.4
    };
    let xs = range(&mut points.iter().map(|(at, _)| *at));
    let ys = range(&mut points.iter().flat_map(|(_, spread)| [spread.min * 1e6, spread.max * 1e6]));
    draw((WIDTH, CURVE_HEIGHT), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(work, ("sans-serif", 16))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
        let what = work.split_once(", ").map_or(work, |(_, what)| what);
        chart.configure_mesh().x_desc(what).y_desc("us in the daemon").draw()?;
        let medians = points.iter().map(|(at, spread)| (*at, spread.median * 1e6));
        chart.draw_series(LineSeries::new(medians, colour(2).stroke_width(2)))?;
        let spreads = points.iter().map(|(at, spread)| {
            PathElement::new(vec![(*at, spread.min * 1e6), (*at, spread.max * 1e6)], BLACK)
        });
        chart.draw_series(spreads)?;
        Ok(())
    })
}

fn draw(
    size: (u32, u32),
    paint: impl for<'a> FnOnce(&Area<'a>) -> std::result::Result<(), Box<dyn Error>>,
) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        paint(&area)?;
        area.present()?;
    }
    Ok(svg)
}

fn colour(nth: usize) -> RGBColor {
    COLOURS[nth % COLOURS.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::tests::sample;

    #[test]
    fn plots_are_drawn() {
        let mut samples = vec![sample("find", NATIVE, 0, 2.0), sample("find", "aether", 0, 3.0)];
        for at in [1, 10, 100] {
            samples.push(Sample { at: Some(at), ..sample("fork, depth", "aether", 0, 1e-4) });
        }
        let plots = of(&samples, Group::Scan).unwrap();
        let names: Vec<_> = plots.iter().map(|plot| plot.name.as_str()).collect();
        assert_eq!(names, ["scan.svg", "fork-depth.svg"]);
        assert!(plots[0].svg.contains("1.50") && plots[1].svg.contains("us in the daemon"));
        assert!(of(&samples, Group::Git).unwrap().is_empty());
    }
}
