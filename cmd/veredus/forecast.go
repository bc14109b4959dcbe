package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	veredusv1 "github.com/veredus/veredus/proto/veredus/v1"
	"github.com/veredus/veredus/server/forecast"
)

// foresee asks a node how a delivery would go.
type foresee struct {
	node
	json bool
}

func newForecast() *cobra.Command {
	f := &foresee{}
	cmd := &cobra.Command{
		Use:   "forecast DELIVERY",
		Short: "Foretell how long a delivery would take, and what bounds it",
		Long: `Foretell how a delivery that is prepared or runs would go from now on: how long it
takes, what bounds it at each destination, and how many messages will not make their
validity period. The node simulates it with today's rules, what it has learned, the mail
it has already and its warm-ups; the assumptions are part of the answer.`,
		Example: `  veredus forecast spring
  veredus forecast deliveries/spring --json`,
		Args: exactArgs("the delivery"),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := f.dial(cmd)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			answer, err := veredusv1.NewRelayServiceClient(conn).Forecast(cmd.Context(), &veredusv1.ForecastRequest{Delivery: deliveryName(args[0])})
			if err != nil {
				return f.node.explain(err)
			}
			if f.json {
				return printProto(cmd.OutOrStdout(), answer)
			}
			printForecast(cmd.OutOrStdout(), deliveryName(args[0]), answer)
			return nil
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&f.json, "json", false, "print the forecast as JSON")
	return cmd
}

func printForecast(out io.Writer, name string, f *veredusv1.ForecastResponse) {
	fmt.Fprintln(out, name)
	late := "none"
	if p := f.GetLatePercent(); p > 0 {
		late = fmt.Sprintf("%.2f%%", p)
	}
	pairs(out, "takes about", roughly(f.GetDuration().AsDuration()), "late", late)
	if len(f.GetDestinations()) > 0 {
		fmt.Fprintln(out)
		t := newTable("destination", "messages", "takes about", "pace", "bounded by", "late")
		for _, d := range f.GetDestinations() {
			t.row(clip(oneLine(d.GetDestination()), 60), d.GetMessages(), roughly(d.GetDuration().AsDuration()), forecast.Pace(d.GetHourlyRate()), d.GetBottleneck(), d.GetLate())
		}
		t.print(out)
	}
	if len(f.GetAssumptions()) > 0 {
		fmt.Fprintln(out, "\nIt rests on this:")
		for _, a := range f.GetAssumptions() {
			fmt.Fprintf(out, "  - %s\n", oneLine(a))
		}
	}
}

// roughly is a duration without more digits than a forecast has.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%d min", d.Round(time.Minute)/time.Minute)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %02d min", d/time.Hour, d%time.Hour/time.Minute)
}
