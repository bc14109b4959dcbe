package simulation

import (
	"bufio"
	"fmt"
	"html"
	"io"
	"math"
	"strconv"
	"time"
)

// Measures of a plot in pixels: one panel below the other for each receiver.
const (
	plotWidth   = 960
	panelHeight = 220
	plotLeft    = 70
	plotRight   = 80
	panelTop    = 46
	panelBottom = 34
	headHeight  = 56
	maxPoints   = 600
)

// Colours that people who see few of them tell apart (Okabe and Ito).
const (
	colourSent    = "#0072b2"
	colourLimit   = "#d55e00"
	colourBacklog = "#999999"
)

// SVG draws messages sent, the receiver's limit and the backlog over time, a panel for
// each receiver.
func (r *Report) SVG(w io.Writer) error {
	b := bufio.NewWriter(w)
	height := headHeight + len(r.Receivers)*panelHeight
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(b, `<title>%s</title><rect width="100%%" height="100%%" fill="white"/>`+"\n", html.EscapeString(r.Scenario))
	fmt.Fprintf(b, `<text x="%d" y="22" font-size="16" font-weight="bold">%s</text>`+"\n", plotLeft, html.EscapeString(r.Scenario))
	fmt.Fprintf(b, `<text x="%d" y="42" fill="#555">efficiency %.1f %%, pacing deferrals %.2f %% of deliveries, seed %d</text>`+"\n",
		plotLeft, 100*r.Efficiency, r.PacingPercent, r.Seed)
	for i := range r.Receivers {
		p := newPanel(&r.Receivers[i], headHeight+i*panelHeight)
		p.draw(b)
	}
	fmt.Fprintln(b, "</svg>")
	return b.Flush()
}

// panel is one receiver's part of a plot.
type panel struct {
	r              *ReceiverReport
	top            int
	step           float64 // seconds of a point
	sent, limit    []float64
	backlog        []float64
	rates, amounts axis
	seconds        float64
}

func newPanel(r *ReceiverReport, top int) *panel {
	s := &r.Series
	group := (len(s.Sent) + maxPoints - 1) / maxPoints
	group = max(group, 1)
	p := &panel{
		r: r, top: top, step: s.StepSeconds * float64(group),
		sent: means(s.Sent, group), limit: means(s.Limit, group), backlog: ends(s.Backlog, group),
	}
	p.seconds = max(float64(len(p.sent))*p.step, s.StepSeconds)
	most := 0.0
	for i, v := range p.sent {
		most = max(most, v)
		if p.limit[i] < unlimited/2 {
			most = max(most, p.limit[i])
		}
	}
	waiting := 0.0
	for _, v := range p.backlog {
		waiting = max(waiting, v)
	}
	p.rates, p.amounts = newAxis(most), newAxis(waiting)
	return p
}

// means averages each group of values.
func means(list []float64, group int) []float64 {
	var out []float64
	for i := 0; i < len(list); i += group {
		sum, n := 0.0, 0
		for _, v := range list[i:min(i+group, len(list))] {
			sum += v
			n++
		}
		out = append(out, sum/float64(n))
	}
	return out
}

// ends takes the last value of each group.
func ends(list []int64, group int) []float64 {
	var out []float64
	for i := 0; i < len(list); i += group {
		out = append(out, float64(list[min(i+group, len(list))-1]))
	}
	return out
}

// axis runs from 0 in steps that people can read.
type axis struct{ most, step float64 }

func newAxis(most float64) axis {
	if most <= 0 {
		return axis{1, 1}
	}
	magnitude := math.Pow(10, math.Floor(math.Log10(most/4)))
	for _, f := range [...]float64{1, 2, 2.5, 5, 10} {
		if step := f * magnitude; most/step <= 5 {
			return axis{math.Ceil(most/step) * step, step}
		}
	}
	return axis{most, most}
}

func (p *panel) x(seconds float64) float64 {
	return plotLeft + seconds/p.seconds*(plotWidth-plotLeft-plotRight)
}

func (p *panel) y(value float64, a axis) float64 {
	floor := float64(p.top + panelHeight - panelBottom)
	return floor - min(value/a.most, 1)*(panelHeight-panelTop-panelBottom)
}

func (p *panel) draw(b *bufio.Writer) {
	name := p.r.Name
	if p.r.Copies > 0 {
		name += " x " + strconv.Itoa(p.r.Copies)
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", plotLeft, p.top+18, html.EscapeString(name))
	fmt.Fprintf(b, `<text x="%d" y="%d" fill="#555">efficiency %.1f %%, pacing %.2f %%</text>`+"\n", plotLeft, p.top+34, 100*p.r.Efficiency, p.r.PacingPercent)
	p.legend(b)
	p.grid(b)
	p.area(b, p.backlog, p.amounts, colourBacklog)
	p.line(b, p.limit, p.rates, colourLimit, "6 4")
	p.line(b, p.sent, p.rates, colourSent, "")
}

func (p *panel) legend(b *bufio.Writer) {
	x := plotWidth - plotRight - 390
	for _, l := range [...]struct{ text, colour string }{
		{"sent, messages/s", colourSent}, {"limit, messages/s", colourLimit}, {"backlog (right)", colourBacklog},
	} {
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="4" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n", x, p.top+28, l.colour, x+16, p.top+34, l.text)
		x += 132
	}
}

// grid draws the axes with their numbers.
func (p *panel) grid(b *bufio.Writer) {
	for v := 0.0; v <= p.rates.most*1.0001; v += p.rates.step {
		y := p.y(v, p.rates)
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#ddd"/>`, plotLeft, plotWidth-plotRight, y, y)
		fmt.Fprintf(b, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft-6, y+4, number(v))
	}
	for v := 0.0; v <= p.amounts.most*1.0001; v += p.amounts.step {
		fmt.Fprintf(b, `<text x="%d" y="%.1f" fill="#777">%s</text>`+"\n", plotWidth-plotRight+6, p.y(v, p.amounts)+4, number(v))
	}
	step := timeStep(p.seconds)
	floor := p.top + panelHeight - panelBottom
	for t := 0.0; t <= p.seconds; t += step {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", p.x(t), floor+16, drained(true, t))
	}
}

// timeStep is a step that gives about eight marks.
func timeStep(seconds float64) float64 {
	for _, d := range [...]time.Duration{
		time.Second, 2 * time.Second, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 5 * time.Minute,
		10 * time.Minute, 20 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour,
	} {
		if seconds/d.Seconds() <= 8 {
			return d.Seconds()
		}
	}
	return math.Ceil(seconds/8/86400) * 86400
}

// number is a figure with k or M where it is long.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + "M"
	case v >= 1e4:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

func (p *panel) line(b *bufio.Writer, values []float64, a axis, colour, dashes string) {
	fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" stroke-dasharray="%s" points="`, colour, dashes)
	for i, v := range values {
		fmt.Fprintf(b, "%.1f,%.1f ", p.x((float64(i)+0.5)*p.step), p.y(v, a))
	}
	fmt.Fprintln(b, `"/>`)
}

func (p *panel) area(b *bufio.Writer, values []float64, a axis, colour string) {
	fmt.Fprintf(b, `<polygon fill="%s" fill-opacity="0.25" points="%.1f,%.1f `, colour, p.x(0), p.y(0, a))
	for i, v := range values {
		fmt.Fprintf(b, "%.1f,%.1f ", p.x(float64(i+1)*p.step), p.y(v, a))
	}
	fmt.Fprintf(b, `%.1f,%.1f"/>`+"\n", p.x(float64(len(values))*p.step), p.y(0, a))
}
