package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	api "castellan.dev/castellan/api/v1alpha1"
)

// progressView shows an Operation: on a terminal in place, else a line for each change.
type progressView struct {
	out io.Writer
	// size is columns and rows of the terminal; nil when out is none.
	size func() (columns, rows int)

	op    *api.Operation // as it was last shown
	note  string
	drawn int // lines of the terminal that are ours
}

// clock ticks while there is time to be shown.
func (v *progressView) clock() (tick <-chan time.Time, stop func()) {
	if v.size == nil {
		return nil, func() {}
	}
	ticker := time.NewTicker(time.Second)
	return ticker.C, ticker.Stop
}

// begin leaves what was shown where it is.
func (v *progressView) begin() { v.op, v.note, v.drawn = nil, "", 0 }

func (v *progressView) show(op *api.Operation, now time.Time) {
	before := v.op
	v.op, v.note = op, ""
	if v.size == nil {
		v.changes(before, op, now)
		return
	}
	v.draw(now)
}

// wait says what is waited for while no Operation is there.
func (v *progressView) wait(text string, now time.Time) {
	if v.op != nil {
		v.begin()
	}
	v.trouble(text, now)
}

// trouble says something beside the Operation, once.
func (v *progressView) trouble(text string, now time.Time) {
	if text == v.note {
		return
	}
	v.note = text
	if v.size == nil {
		v.line(now, "%s", text)
		return
	}
	v.draw(now)
}

// back takes back what trouble said of the API server.
func (v *progressView) back(now time.Time) {
	if v.note == "" {
		return
	}
	if v.note = ""; v.size == nil {
		v.line(now, "the API server answers again")
		return
	}
	v.draw(now)
}

func (v *progressView) line(now time.Time, format string, args ...any) {
	fmt.Fprintf(v.out, "%s %s\n", now.UTC().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// changes tells what is another than before.
func (v *progressView) changes(before, op *api.Operation, now time.Time) {
	was := api.OperationStatus{}
	if before == nil {
		v.line(now, "%s: %s", op.Name, whatOf(op))
	} else {
		was = before.Status
	}
	v.nodeChanges(was.Nodes, op.Status.Nodes, now)
	v.moveChanges(was.Moves, op.Status.Moves, now)
	s := &op.Status
	if before == nil || s.Phase != was.Phase || s.Steps != was.Steps || s.Message != was.Message {
		v.line(now, "%s", oneLine(fmt.Sprintf("%s %s %d/%d %d%% %s %s", op.Name, phaseOf(op), s.Steps.Done, s.Steps.Total, s.Steps.Percent, remaining(op, now), s.Message)))
	}
}

func (v *progressView) nodeChanges(before, nodes []api.OperationNode, now time.Time) {
	was := map[int32]api.OperationNode{}
	for _, n := range before {
		was[n.ID] = n
	}
	for i := range nodes {
		n := &nodes[i]
		old, known := was[n.ID]
		if !known {
			old.State = api.OperationNodeWaiting
		}
		if n.State == old.State && n.Attempt == old.Attempt && (n.State == api.OperationNodeWaiting || n.Reason == old.Reason) {
			continue
		}
		v.line(now, "  %s", oneLine(fmt.Sprintf("node %d %s %s %s", n.ID, n.State, nodeTook(n, now), n.Reason)))
		if n.Log != "" && n.Log != old.Log {
			for text := range strings.Lines(strings.TrimRight(n.Log, "\n") + "\n") {
				fmt.Fprintf(v.out, "             | %s", text)
			}
		}
	}
}

// moveChanges tells of moves that began or ended; how many bytes are left is told with that.
func (v *progressView) moveChanges(before, moves *api.OperationMoves, now time.Time) {
	if moves == nil {
		return
	}
	if before != nil && before.Done == moves.Done && before.Total == moves.Total && before.Running == moves.Running && before.Foreign == moves.Foreign {
		return
	}
	v.line(now, "  moves %s", movesLine(moves))
}

// remaining is how long it took or probably takes.
func remaining(op *api.Operation, now time.Time) string {
	s := &op.Status
	switch {
	case s.StartedAt == nil:
		return ""
	case s.FinishedAt != nil:
		return "took " + duration.HumanDuration(s.FinishedAt.Sub(s.StartedAt.Time))
	case s.EstimatedEnd == nil:
		return "for " + duration.HumanDuration(now.Sub(s.StartedAt.Time))
	case s.EstimatedEnd.After(now):
		return fmt.Sprintf("for %s, about %s more", duration.HumanDuration(now.Sub(s.StartedAt.Time)), duration.HumanDuration(s.EstimatedEnd.Sub(now)))
	default:
		return fmt.Sprintf("for %s, longer than expected", duration.HumanDuration(now.Sub(s.StartedAt.Time)))
	}
}

// draw puts what there is to show in place of what it drew before.
func (v *progressView) draw(now time.Time) {
	if v.size == nil {
		return
	}
	columns, rows := v.size()
	var lines []string
	if v.op != nil {
		lines = liveLines(v.op, now, max(4, rows-1))
	}
	if v.note != "" {
		lines = append(lines, oneLine(v.note))
	}
	var b strings.Builder
	if v.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", v.drawn) // up to the first of ours, and clear from there
	}
	for _, line := range lines {
		b.WriteString(cut(line, columns) + "\n")
	}
	v.drawn = len(lines)
	fmt.Fprint(v.out, b.String())
}

func cut(line string, columns int) string {
	if runes := []rune(line); columns > 1 && len(runes) >= columns {
		return string(runes[:columns-2]) + "…"
	}
	return line
}

const barWidth = 30

func bar(percent int32) string {
	done := int(min(max(percent, 0), 100)) * barWidth / 100
	return "[" + strings.Repeat("#", done) + strings.Repeat("-", barWidth-done) + "]"
}

// liveLines show an Operation in at most so many lines: where there is no room for all nodes,
// those are left out that wait or are done.
func liveLines(op *api.Operation, now time.Time, room int) []string {
	s := &op.Status
	lines := []string{
		fmt.Sprintf("%s: %s, %s", op.Name, whatOf(op), phaseOf(op)),
		strings.TrimRight(fmt.Sprintf("%s %d of %d (%d%%) %s", bar(s.Steps.Percent), s.Steps.Done, s.Steps.Total, s.Steps.Percent, remaining(op, now)), " "),
	}
	if s.Moves != nil {
		lines = append(lines, "moves "+movesLine(s.Moves))
	}
	if s.Message != "" {
		lines = append(lines, oneLine(s.Message))
	}
	room -= len(lines) + 1
	left := map[api.OperationNodeState]int{}
	excess := len(s.Nodes) - room
	for i := range s.Nodes {
		n := &s.Nodes[i]
		if excess > 0 && n.State != api.OperationNodeRunning && !failed(n.State) {
			left[n.State]++
			excess--
			continue
		}
		lines = append(lines, strings.TrimRight(fmt.Sprintf("  node %-5d %-10s %-12s %s", n.ID, n.State, nodeTook(n, now), oneLine(n.Reason)), " "))
	}
	var others []string
	for _, state := range []api.OperationNodeState{api.OperationNodeSucceeded, api.OperationNodeWaiting, api.OperationNodeIgnored, api.OperationNodeCancelled} {
		if left[state] > 0 {
			others = append(others, fmt.Sprintf("%d %s", left[state], state))
		}
	}
	if len(others) > 0 {
		lines = append(lines, "  and "+strings.Join(others, ", "))
	}
	return lines
}
