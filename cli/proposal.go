package cli

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	api "castellan.dev/castellan/api/v1alpha1"
)

// bytesText is a number of bytes for people, in the units of a Kubernetes quantity.
func bytesText(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10)
	}
	const units = "KMGTPE"
	value, unit := float64(n)/(1<<10), 0
	for ; value >= 1<<10 && unit < len(units)-1; unit++ {
		value /= 1 << 10
	}
	digits := 1
	if value >= 100 {
		digits = 0
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + units[unit:unit+1] + "i"
}

// movesText says how far moves are: so many partitions of all, and the bytes left to copy.
func movesText(m *api.OperationMoves) string {
	if m == nil {
		return ""
	}
	text := fmt.Sprintf("%d/%d", m.Done, m.Total)
	if m.Done < m.Total || m.LeftBytes > 0 {
		text += ", " + bytesText(m.LeftBytes) + " left"
	}
	return text
}

// movesLine is movesText with what else is on its way.
func movesLine(m *api.OperationMoves) string {
	text := movesText(m)
	if text == "" {
		return ""
	}
	if m.Running > 0 {
		text += fmt.Sprintf(", %d under way", m.Running)
	}
	if m.Foreign > 0 {
		text += fmt.Sprintf(", and %d reassignments of somebody else", m.Foreign)
	}
	return text
}

// proposalText says what moving costs.
func proposalText(p *api.OperationProposal) string {
	text := fmt.Sprintf("%d partitions, %s bytes between brokers (any plan needs %s)", p.Moves, bytesText(p.Bytes), bytesText(p.LeastBytes))
	if p.LocalBytes > 0 {
		text += fmt.Sprintf(", %s between log dirs", bytesText(p.LocalBytes))
	}
	if p.Seconds > 0 {
		text += ", at least " + duration.HumanDuration(time.Duration(p.Seconds)*time.Second)
	}
	return text
}

// printProposal shows what moving is to bring, broker by broker.
func printProposal(w io.Writer, p *api.OperationProposal) error {
	if p == nil {
		return nil
	}
	header := []string{"ID", "RACK", "USED", "BYTES", "REPLICAS", "LEADERS"}
	if err := section(w, "Brokers before and after", header, brokerRows(p.Brokers)); err != nil {
		return err
	}
	var rows [][]string
	for _, o := range p.Objectives {
		rows = append(rows, []string{o.Name, yesNo(o.Met), fromTo(o.Before, o.After), o.Limit})
	}
	return section(w, "Objectives", []string{"NAME", "MET", "OFF BY", "LIMIT"}, rows)
}

func brokerRows(brokers []api.ProposalBroker) [][]string {
	var rows [][]string
	for _, b := range brokers {
		used := "" // of disks of unknown size
		if b.Before.Percent > 0 || b.After.Percent > 0 {
			used = fromTo(fmt.Sprintf("%d%%", b.Before.Percent), fmt.Sprintf("%d%%", b.After.Percent))
		}
		number := func(before, after int32) string { return fromTo(strconv.Itoa(int(before)), strconv.Itoa(int(after))) }
		rows = append(rows, []string{
			strconv.Itoa(int(b.ID)), b.Rack, used, fromTo(bytesText(b.Before.Bytes), bytesText(b.After.Bytes)),
			number(b.Before.Replicas, b.After.Replicas), number(b.Before.Leaders, b.After.Leaders),
		})
	}
	return rows
}

func fromTo(before, after string) string {
	if before == after {
		return before
	}
	return cmp.Or(before, "none") + " -> " + cmp.Or(after, "none")
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
