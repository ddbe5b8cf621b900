package compare

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/lockstep-cache/lockstep/internal/text"
)

// The page is one file: no script, no font, no picture from elsewhere.
//
//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"count": func(n any) string {
		switch n := n.(type) {
		case int:
			return text.Count(n)
		case uint64:
			return text.Count(n)
		case float64:
			return text.Count(int64(n))
		}
		return fmt.Sprint(n)
	},
	"span":    text.Span,
	"percent": part,
	"colour":  colour,
}).Parse(pageText))

// colours are Okabe and Ito's, who chose them so that nobody takes one for another.
var colours = []string{"#999999", "#d55e00", "#009e73", "#0072b2", "#cc79a7", "#e69f00", "#56b4e9", "#a08000"}

func colour(i int) string { return colours[i%len(colours)] }

// WritePage draws the report: a page of HTML that needs nothing else.
func (r *Report) WritePage(out io.Writer) error {
	var reads, writes, calls []curve
	for i, p := range r.Patterns {
		reads = append(reads, curve{p.Pattern, colour(i), tail(p.Reads.Curve)})
		writes = append(writes, curve{p.Pattern, colour(i), tail(p.Writes.Curve)})
		var points []point
		for _, t := range p.Throughput {
			points = append(points, point{t.Seconds, t.CallsPerSecond})
		}
		calls = append(calls, curve{p.Pattern, colour(i), points})
	}
	return pageTemplate.Execute(out, struct {
		*Report
		Charts []chart
	}{r, []chart{
		{"What a read takes", "Of how many reads the slowest takes that long.", draw(reads, nines, durations)},
		{"What a write takes", "Of how many writes the slowest takes that long.", draw(writes, nines, durations)},
		{"Calls a second, as time goes by", "From the start of the program, with memory empty, to its death.", draw(calls, seconds, rates)},
	}})
}

type chart struct {
	Title, Caption string
	SVG            template.HTML
}

type point struct{ x, y float64 }

type curve struct {
	name, colour string
	points       []point
}

// tail is a curve of quantiles: x is of how many calls one is as slow.
func tail(of []time.Duration) (points []point) {
	for i, d := range of {
		points = append(points, point{1 / (1 - curveQuantiles[i]), max(1, float64(d))})
	}
	return points
}

// axis is how one of the two directions is drawn.
type axis struct {
	log   bool
	label func(float64) string
}

var (
	nines     = axis{true, func(x float64) string { return "1 in " + text.Count(int64(math.Round(x))) }}
	durations = axis{true, func(y float64) string { return text.Span(time.Duration(y)) }}
	seconds   = axis{false, func(x float64) string { return fmt.Sprintf("%g s", x) }}
	rates     = axis{false, func(y float64) string { return text.Count(int64(y)) }}
)

// Of a chart, in its own units.
const (
	chartWidth, chartHeight                   = 760, 320
	chartLeft, chartRight, chartTop, chartLow = 76, 40, 12, 34
)

// draw draws curves. The names are the page's table's, by colour.
func draw(curves []curve, horizontal, vertical axis) template.HTML {
	var xs, ys []float64
	for _, c := range curves {
		for _, p := range c.points {
			xs, ys = append(xs, p.x), append(ys, p.y)
		}
	}
	if len(xs) == 0 {
		return template.HTML("<p>Nothing was counted.</p>")
	}
	x, xTicks := horizontal.scale(xs, chartLeft, chartWidth-chartRight)
	y, yTicks := vertical.scale(ys, chartHeight-chartLow, chartTop)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img">`, chartWidth, chartHeight)
	for _, t := range yTicks {
		fmt.Fprintf(&b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, chartWidth-chartRight, y(t), y(t), chartLeft-8, y(t)+4, template.HTMLEscapeString(vertical.label(t)))
	}
	for _, t := range xTicks {
		fmt.Fprintf(&b, `<line class="grid" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`,
			x(t), x(t), chartTop, chartHeight-chartLow, x(t), chartHeight-chartLow+20, template.HTMLEscapeString(horizontal.label(t)))
	}
	for _, c := range curves {
		if len(c.points) == 0 {
			continue
		}
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, c.colour)
		for i, p := range c.points {
			if i > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%.1f,%.1f", x(p.x), y(p.y))
		}
		fmt.Fprintf(&b, `"><title>%s</title></polyline>`, template.HTMLEscapeString(c.name))
	}
	b.WriteString("</svg>")
	return template.HTML(b.String())
}

// scale returns where a value is between from and to, and which values have a line. A
// logarithmic axis goes from one power of ten to another.
func (a axis) scale(values []float64, from, to float64) (at func(float64) float64, ticks []float64) {
	low, high := values[0], values[0]
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	if a.log {
		lowest, highest := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
		highest = max(highest, lowest+1)
		for e := lowest; e <= highest; e++ {
			ticks = append(ticks, math.Pow(10, e))
		}
		return func(v float64) float64 { return from + (to-from)*(math.Log10(v)-lowest)/(highest-lowest) }, ticks
	}
	low = 0
	step := math.Pow(10, math.Floor(math.Log10(max(high, 1e-9))))
	for _, finer := range []float64{0.5, 0.2, 0.1} {
		if high/step < 4 {
			step *= finer / map[float64]float64{0.5: 1, 0.2: 0.5, 0.1: 0.2}[finer]
		}
	}
	for t := low; t <= high+step/1e6; t += step {
		ticks = append(ticks, math.Round(t/step)*step)
	}
	return func(v float64) float64 { return from + (to-from)*(v-low)/max(high-low, 1e-9) }, ticks
}
