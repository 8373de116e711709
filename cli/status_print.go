package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
)

// print writes the view for people.
func (v *clusterView) print(w io.Writer) error {
	state := "not ready"
	switch {
	case v.State == api.StateStopped:
		state = "stopped"
	case v.Ready:
		state = "ready"
	}
	fmt.Fprintf(w, "KafkaCluster %s/%s: %s, Kafka %s\n", v.Namespace, v.Name, state, v.Version)
	if v.Doing != "" {
		fmt.Fprintf(w, "  %s\n", v.Doing)
	}
	if len(v.Conditions) == 0 {
		fmt.Fprintln(w, "  no operator has looked at it yet")
	}
	for _, section := range []func(io.Writer) error{v.printConditions, v.printOperations, v.printNodes, v.printListeners, v.printOperators, v.printEvents} {
		if err := section(w); err != nil {
			return err
		}
	}
	for _, unknown := range v.Unknown {
		fmt.Fprintf(w, "\nUnknown is %s\n", unknown)
	}
	return nil
}

func section(w io.Writer, title string, header []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	header[0] = "  " + header[0]
	for _, row := range rows {
		row[0] = "  " + row[0]
		for i := range row {
			row[i] = strings.ReplaceAll(row[i], "\n", " ")
		}
	}
	return printTable(w, header, rows)
}

func (v *clusterView) printConditions(w io.Writer) error {
	var rows [][]string
	for _, c := range v.Conditions {
		rows = append(rows, []string{c.Type, string(c.Status), c.Reason, c.Message})
	}
	return section(w, "Conditions", []string{"TYPE", "STATUS", "REASON", "MESSAGE"}, rows)
}

func (v *clusterView) printOperations(w io.Writer) error {
	var rows [][]string
	for _, o := range v.Operations {
		rows = append(rows, []string{
			o.Name, string(o.Type), o.Phase, fmt.Sprintf("%d/%d", o.Steps.Done, o.Steps.Total), movesText(o.Moves), o.Message,
		})
	}
	return section(w, "Operations", []string{"NAME", "TYPE", "PHASE", "DONE", "MOVES", "MESSAGE"}, rows)
}

func (v *clusterView) printNodes(w io.Writer) error {
	var rows [][]string
	for _, n := range v.Nodes {
		why := ""
		if !n.Ready {
			why = strings.TrimSpace(n.Reason + ": " + n.Message)
			why = strings.Trim(why, ": ")
		}
		rows = append(rows, []string{
			strconv.Itoa(int(n.ID)), n.Roles, string(n.State), strconv.FormatBool(n.Ready), strconv.Itoa(int(n.Restarts)), n.On, n.Rack, why,
		})
	}
	return section(w, "Nodes", []string{"ID", "ROLES", "STATE", "READY", "RESTARTS", "ON", "RACK", "WHY"}, rows)
}

func (v *clusterView) printListeners(w io.Writer) error {
	var rows [][]string
	for _, l := range v.Listeners {
		ca := ""
		if l.CASecretRef != nil {
			ca = "Secret " + l.CASecretRef.Name + ", key ca.crt"
		}
		servers := l.BootstrapServers
		if servers == "" {
			servers = "none yet"
		}
		rows = append(rows, []string{l.Name, servers, ca})
	}
	return section(w, "Listeners", []string{"NAME", "BOOTSTRAP SERVERS", "CA"}, rows)
}

func (v *clusterView) printOperators(w io.Writer) error {
	var rows [][]string
	for _, o := range v.Operators {
		rows = append(rows, []string{o.Namespace + "/" + o.Name, fmt.Sprintf("%d of %d", o.Ready, o.Desired), o.Image, o.Message})
	}
	return section(w, "Operator", []string{"DEPLOYMENT", "READY", "IMAGE", "MESSAGE"}, rows)
}

func (v *clusterView) printEvents(w io.Writer) error {
	var rows [][]string
	for _, e := range v.Events {
		message := e.Message
		if e.Count > 1 {
			message += fmt.Sprintf(" (%d times)", e.Count)
		}
		rows = append(rows, []string{e.At.UTC().Format(time.TimeOnly), e.Type, e.Object, e.Reason, message})
	}
	return section(w, "Events", []string{"LAST (UTC)", "TYPE", "OBJECT", "REASON", "MESSAGE"}, rows)
}
