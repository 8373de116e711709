package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/core/layout"
)

const (
	askPoll = 500 * time.Millisecond
	// lookAgain at the disks while waiting for an answer: one may be mounted meanwhile.
	lookAgain = 5 * time.Second
)

// storage sees to it that every disk carries this node's data of this cluster. It formats
// only what it was told to.
func (s *supervisor) storage(ctx context.Context) error {
	if err := s.finishFormat(); err != nil {
		return fail(ExitStorage, ReasonFormatFailed, "finish a format that was cut off: %v", err)
	}
	for {
		found := inspect(s.static.Volumes)
		s.report.set(func(r *layout.Report) { r.Volumes = found })
		live, err := s.live()
		if err != nil {
			return fail(ExitFiles, ReasonBadFiles, "%v", err)
		}
		if err := checkVolumes(s.static, found, live.ClusterID); err != nil {
			return err
		}
		if err := s.checkSpace(found); err != nil {
			return err
		}
		if live.ClusterID != "" && len(emptyOf(found)) == 0 {
			return nil
		}
		answer, err := s.ask(ctx, found)
		if err != nil {
			return err
		}
		if answer == nil {
			continue // the disks changed: look again, ask anew
		}
		if err := s.obey(ctx, *answer, found); err != nil {
			return err
		}
	}
}

// ask waits for the answer to a question that has never been asked before, and forgets it:
// no answer is good for more than one use, in one run. It returns nil when the disks are
// not as reported any more.
func (s *supervisor) ask(ctx context.Context, found []api.VolumeStatus) (*layout.Live, error) {
	nonce := rand.Text()
	defer s.report.set(func(r *layout.Report) { r.Nonce = "" })
	empty := emptyOf(found)
	message := fmt.Sprintf("volumes %s are empty: nothing is formatted until the plan has answered", strings.Join(empty, ", "))
	if len(empty) == 0 {
		message = "the disks carry data, but which cluster this node belongs to is not known yet: waiting for the plan's answer"
	}
	s.report.set(func(r *layout.Report) {
		r.State, r.Reason, r.Message, r.Nonce = api.NodeAsking, ReasonWaitingForStorage, message, nonce
	})
	s.log.InfoContext(ctx, "ask what to do with the disks", slog.Any("empty", empty))
	looked := s.config.now()
	for {
		if !pause(ctx, askPoll) {
			return nil, ctx.Err()
		}
		live, err := s.live()
		if err != nil {
			s.log.WarnContext(ctx, "read the live file", slog.String("error", err.Error()))
			continue
		}
		answered := live.Storage != nil && live.Storage.Nonce == nonce && live.ClusterID != ""
		if answered || s.config.now().Sub(looked) > lookAgain {
			looked = s.config.now()
			if !reflect.DeepEqual(inspect(s.static.Volumes), found) {
				return nil, nil //nolint:nilnil // the question itself is void
			}
		}
		if answered {
			return &live, nil
		}
	}
}

// emptyOf names the empty volumes.
func emptyOf(found []api.VolumeStatus) []string {
	var names []string
	for _, v := range found {
		if v.State == api.VolumeEmpty {
			names = append(names, v.Name)
		}
	}
	return names
}

// obey does what the plan answered, or refuses it.
func (s *supervisor) obey(ctx context.Context, live layout.Live, found []api.VolumeStatus) error {
	if err := checkVolumes(s.static, found, live.ClusterID); err != nil {
		return err
	}
	answer := *live.Storage
	if why := unfit(s.static, answer, found); why != "" {
		return fail(ExitData, ReasonAnswerRefused, "the plan answered %s, but %s; nothing was formatted, the next start asks again", answer.Answer, why)
	}
	if answer.Answer == api.StorageAdopt {
		return nil
	}
	s.report.set(func(r *layout.Report) {
		r.State, r.Reason, r.Message = api.NodeFormatting, "", "formatting the volumes "+strings.Join(emptyOf(found), ", ")
	})
	s.log.InfoContext(ctx, "format the disks", slog.String("answer", string(answer.Answer)), slog.String("cluster", live.ClusterID))
	return s.format(ctx, live, found)
}

// unfit says why an answer does not suit the disks.
func unfit(s layout.Static, a api.StorageAnswer, found []api.VolumeStatus) string {
	empty := emptyOf(found)
	switch a.Answer {
	case api.StorageAdopt:
		if len(empty) > 0 {
			return fmt.Sprintf("the volumes %s are empty", strings.Join(empty, ", "))
		}
	case api.StorageBootstrap:
		if len(empty) != len(found) {
			return "not every volume is empty"
		}
		if layout.HasRole(s, api.RoleController) && directoryOf(a.InitialControllers, s.NodeID) == "" {
			return fmt.Sprintf("its initial controllers %q do not name this controller", a.InitialControllers)
		}
		if !layout.HasRole(s, api.RoleController) && len(a.InitialControllers) > 0 {
			return "a broker must not be given initial controllers"
		}
	case api.StorageJoin:
	default:
		return "this castellan does not know that answer"
	}
	return ""
}

// directoryOf finds a node's directory id among id@host:port:directory.
func directoryOf(initial []string, id int32) string {
	for _, entry := range initial {
		if rest, ok := strings.CutPrefix(entry, fmt.Sprintf("%d@", id)); ok {
			return rest[strings.LastIndexByte(rest, ':')+1:]
		}
	}
	return ""
}

// format prepares each empty volume beside its place and moves all of them there when every
// one is good, so that a log directory is never half formatted. Kafka's tool never gets to
// see a volume that has data.
func (s *supervisor) format(ctx context.Context, live layout.Live, found []api.VolumeStatus) error {
	moves, err := s.makeRoom(found)
	if err != nil {
		return fail(ExitStorage, ReasonFormatFailed, "prepare the volumes: %v", err)
	}
	if err := s.runFormat(ctx, live, moves); err != nil {
		return err
	}
	if err := s.verifyFormat(live, moves); err != nil {
		return fail(ExitStorage, ReasonFormatFailed, "Kafka's format tool did not do what was asked: %v; nothing was put in place", err)
	}
	if err := s.commitFormat(live, moves); err != nil {
		return fail(ExitStorage, ReasonFormatFailed, "put the formatted folders in place: %v; the next start goes on with it", err)
	}
	return nil
}

// move is a freshly formatted folder and its place.
type move struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Metadata marks the log directory with the metadata log.
	Metadata bool `json:"metadata,omitempty"`
}

func (s *supervisor) makeRoom(found []api.VolumeStatus) ([]move, error) {
	var moves []move
	for i, v := range s.static.Volumes {
		if found[i].State != api.VolumeEmpty {
			continue
		}
		m := move{From: layout.DataDir(v) + formatting, To: layout.DataDir(v), Metadata: i == 0}
		if err := os.RemoveAll(m.From); err != nil {
			return nil, fmt.Errorf("remove what a cut-off format left: %w", err)
		}
		if err := os.MkdirAll(m.From, 0o700); err != nil {
			return nil, err
		}
		moves = append(moves, m)
	}
	return moves, nil
}

// runFormat calls Kafka's own tool with the node's properties, but for the folders.
func (s *supervisor) runFormat(ctx context.Context, live layout.Live, moves []move) error {
	if len(moves) == 0 {
		return nil
	}
	properties, err := layout.Properties(s.static, live, s.facts())
	if err != nil {
		return fail(ExitConfig, ReasonBadConfig, "%v", err)
	}
	folders := make([]string, 0, len(moves))
	for _, m := range moves {
		folders = append(folders, m.From)
	}
	properties["log.dirs"], properties["metadata.log.dir"] = strings.Join(folders, ","), folders[0]
	file := s.path("kafka/format.properties")
	if err := s.writeProperties(file, properties); err != nil {
		return err
	}
	return s.runTool(ctx, formatArguments(s.static, live, file))
}

func formatArguments(s layout.Static, live layout.Live, file string) []string {
	args := []string{"format", "--cluster-id", live.ClusterID, "--config", file}
	if v := live.Storage.MetadataVersion; v != "" {
		args = append(args, "--release-version", v)
	}
	if live.Storage.Answer == api.StorageBootstrap && layout.HasRole(s, api.RoleController) {
		return append(args, "--initial-controllers", strings.Join(live.Storage.InitialControllers, ","))
	}
	return append(args, "--no-initial-controllers")
}

func (s *supervisor) verifyFormat(live layout.Live, moves []move) error {
	for _, m := range moves {
		got := readMeta(api.VolumeStatus{}, filepath.Join(m.From, metaProperties))
		if err := asAsked(got, live.ClusterID, s.static.NodeID); err != nil {
			return fmt.Errorf("%s: %w", m.From, err)
		}
		if want := directoryOf(live.Storage.InitialControllers, s.static.NodeID); m.Metadata && want != "" && got.DirectoryID != want {
			return fmt.Errorf("%s has directory id %s, the quorum expects %s", m.From, got.DirectoryID, want)
		}
	}
	return nil
}

func asAsked(got api.VolumeStatus, clusterID string, nodeID int32) error {
	if got.State != api.VolumeFormatted {
		return errors.New(got.Message)
	}
	if got.ClusterID != clusterID || *got.NodeID != nodeID {
		return fmt.Errorf("it carries cluster %s and node %d, not cluster %s and node %d", got.ClusterID, *got.NodeID, clusterID, nodeID)
	}
	return nil
}

// journalFile names folders that are formatted, verified and on their way to their place.
// It holds no nonce: it lets a move be finished, never a format be repeated.
const journalFile = "format.json"

type journal struct {
	ClusterID string `json:"clusterID"`
	NodeID    int32  `json:"nodeID"`
	Moves     []move `json:"moves"`
}

func (s *supervisor) commitFormat(live layout.Live, moves []move) error {
	for _, m := range moves {
		if err := syncTree(m.From); err != nil {
			return err
		}
	}
	j := journal{ClusterID: live.ClusterID, NodeID: s.static.NodeID, Moves: moves}
	if err := writeJSON(s.path(journalFile), j); err != nil {
		return err
	}
	return s.finishFormat()
}

// finishFormat moves what a journal names to its place. A disk that was swapped or emptied
// meanwhile has no such folder and is asked about like any other.
func (s *supervisor) finishFormat() error {
	file := s.path(journalFile)
	var j journal
	if err := readJSON(file, &j); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	}
	for _, m := range j.Moves {
		if err := s.finishMove(j, m); err != nil {
			return err
		}
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("remove %s: %w", file, err)
	}
	return syncPath(s.dir)
}

func (s *supervisor) finishMove(j journal, m move) error {
	if !s.stillGood(j, m) {
		return nil
	}
	// Removing a folder fails unless that is empty: data is never covered.
	for _, name := range []string{"/.lock", "/.kafka_cleanshutdown", ""} {
		if err := os.Remove(m.To + name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("clear %s: %w", m.To, err)
		}
	}
	if err := os.Rename(m.From, m.To); err != nil {
		return fmt.Errorf("move the formatted folder: %w", err)
	}
	return syncPath(filepath.Dir(m.To))
}

// stillGood says whether a move of a journal concerns this node, has something to move and
// nothing in its way.
func (s *supervisor) stillGood(j journal, m move) bool {
	ours := slices.ContainsFunc(s.static.Volumes, func(v layout.Volume) bool { return layout.DataDir(v) == m.To })
	if !ours || j.NodeID != s.static.NodeID {
		return false
	}
	if asAsked(readMeta(api.VolumeStatus{}, filepath.Join(m.From, metaProperties)), j.ClusterID, j.NodeID) != nil {
		return false
	}
	inWay, err := entries(m.To)
	return err == nil && !slices.ContainsFunc(inWay, func(name string) bool { return !worthless(name) })
}
