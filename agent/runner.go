package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	api "castellan.dev/castellan/api/v1alpha1"
)

// Archives gives the unpacked root of an archive by digest; it fetches or unpacks it when
// needed, which may take long.
type Archives interface {
	Unpacked(ctx context.Context, digest string) (root string, err error)
}

// site is what all runners of an agent share.
type site struct {
	dataRoots  []string
	users      []string
	executable string
	system     system
	archives   Archives
	// publish says what is known of a process; it never blocks.
	publish func(o order, s api.HostProcessStatus)
	// removed says that nothing is left of a process that is to be deleted.
	removed func(ctx context.Context, o order) error
}

// runner keeps one process as its order says. Everything it knows beyond the order lies on
// disk; it is one goroutine (Run), which others only give orders to.
type runner struct {
	site
	folder folder
	log    *slog.Logger
	wake   chan struct{}
	owned  sync.WaitGroup
	// leaving says that nothing is left of the process but its object.
	leaving atomic.Bool

	mu       sync.Mutex
	next     *order
	answer   answer
	archived map[string]*archive

	// The rest belongs to Run's goroutine.
	order     order
	state     state
	proc      process
	stopProbe context.CancelFunc
	backoff   backoff
	unsure    bool // the last start may have happened without being noted
	phase     api.HostProcessState
	reason    string
	message   string
	published *publication
}

type publication struct {
	uid    string
	status api.HostProcessStatus
}

// archive is one request for an archive, open until done.
type archive struct {
	done    bool
	root    string
	err     error
	retryAt time.Time
}

func newRunner(s site, f folder, log *slog.Logger) (*runner, error) {
	o, st, err := f.load()
	if err != nil {
		return nil, err
	}
	return &runner{
		site: s, folder: f, log: log, order: o, state: st, unsure: true,
		wake: make(chan struct{}, 1), archived: make(map[string]*archive),
	}, nil
}

// Order replaces the order, now or as soon as Run looks.
func (r *runner) Order(o order) {
	r.mu.Lock()
	r.next = &o
	r.mu.Unlock()
	r.nudge()
}

// unread is an order that Run did not take up.
func (r *runner) unread() *order {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next
}

func (r *runner) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run keeps the process until the order's deletion is done (true) or ctx ends (false). It
// leaves a running process running.
func (r *runner) Run(ctx context.Context) (deleted bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer r.owned.Wait()
	defer cancel()
	defer r.release()
	for {
		wait, done := r.step(ctx)
		if done {
			return true
		}
		r.tell()
		if !r.sleep(ctx, wait) {
			return false
		}
	}
}

// sleep waits for news, for the end of the process, or for the time (0: none).
func (r *runner) sleep(ctx context.Context, wait time.Duration) bool {
	var due <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		due = timer.C
	}
	var ended <-chan struct{}
	if r.proc != nil {
		ended = r.proc.Done()
	}
	select {
	case <-ctx.Done():
		return false
	case <-r.wake:
	case <-due:
	case <-ended:
	}
	return true
}

// step does what is due now and says when to look again.
func (r *runner) step(ctx context.Context) (wait time.Duration, done bool) {
	if err := r.takeOrder(); err != nil {
		return r.hold(api.ProcessPending, asProblem(err)), false
	}
	if r.order.Name == "" {
		return 0, false // never told anything: a folder without an order
	}
	if err := r.takeHold(ctx); err != nil {
		return r.hold(api.ProcessPending, asProblem(err)), false
	}
	r.noticeEnd()
	switch {
	case r.proc != nil:
		return r.tend(ctx), false
	case r.order.Deleting:
		return r.clear(ctx)
	case r.order.Spec.State == api.StateStopped:
		r.rest()
		return 0, false
	default:
		return r.launch(ctx), false
	}
}

// takeOrder puts a new order on disk before anything is done for it. Any change may be the
// fix for what went wrong, so it ends a backoff.
func (r *runner) takeOrder() error {
	r.mu.Lock()
	next := r.next
	r.next = nil
	r.mu.Unlock()
	if next == nil {
		return nil
	}
	if next.Secrets == nil {
		next.Secrets = r.order.Secrets
	}
	same := sameRequest(r.order, *next)
	if !same || r.order.UID != next.UID || r.order.Generation != next.Generation {
		if err := r.persist(*next); err != nil {
			r.returnOrder(next)
			return err
		}
	}
	if !same || !equality.Semantic.DeepEqual(r.order.Secrets, next.Secrets) {
		r.backoff.reset()
		r.retryArchives()
	}
	r.order = *next
	return nil
}

// returnOrder keeps an order that could not be put on disk, unless a newer one came.
func (r *runner) returnOrder(o *order) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = o
	}
}

// persist writes no folder for a deletion of what was never here.
func (r *runner) persist(o order) error {
	if o.Deleting && r.order.Name == "" {
		return nil
	}
	return r.folder.saveOrder(o)
}

func sameRequest(a, b order) bool {
	return a.Deleting == b.Deleting && equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// takeHold finds, once, the process that an earlier agent started.
func (r *runner) takeHold(ctx context.Context) error {
	if !r.unsure {
		return nil
	}
	if r.state.Token != "" {
		id := r.state.Identity
		if found, ok := r.system.Find(r.state.Token); id.PID == 0 && ok {
			id = found
		}
		proc, err := r.system.Adopt(id)
		if err != nil {
			return fmt.Errorf("adopt the running process: %w", err)
		}
		if proc != nil {
			r.log.InfoContext(ctx, "adopted a running process", slog.Int("pid", id.PID))
			r.state.Identity = id
			r.proc = proc
			r.watchAnswers(ctx)
		} else {
			r.ended(exit{}, r.state.Identity.Boot != "" && r.state.Identity.Boot != r.system.Boot())
		}
	}
	r.unsure = false
	return nil
}

func (r *runner) noticeEnd() {
	if r.proc == nil {
		return
	}
	select {
	case <-r.proc.Done():
		r.ended(r.proc.Exit(), false)
	default:
	}
}

// ended notes the end of the process, whether it was asked for or not.
func (r *runner) ended(e exit, rebooted bool) {
	ran := time.Since(r.state.StartedAt)
	if r.state.StopSince.IsZero() {
		r.state.Restarts++
		r.state.LastExit = r.describeExit(e, rebooted)
		r.backoff.ended(time.Now(), ran)
		r.log.Warn("process ended by itself", slog.String("reason", r.state.LastExit.Reason), slog.String("message", r.state.LastExit.Message))
	} else {
		r.state.LastExit = nil
		r.log.Info("process ended as asked", slog.Bool("killed", r.state.Killed))
	}
	if rebooted {
		r.backoff.reset()
	}
	r.release()
	r.state.Token, r.state.Identity, r.state.StopSince = "", identity{}, time.Time{}
	r.remember()
}

// release lets go of the process, which goes on if it runs.
func (r *runner) release() {
	if r.stopProbe != nil {
		r.stopProbe()
		r.stopProbe = nil
	}
	if r.proc != nil {
		r.proc.Release()
		r.proc = nil
	}
	r.mu.Lock()
	r.answer = answer{}
	r.mu.Unlock()
}

// remember keeps the state on disk. Where it fails the agent goes on: what it forgets is
// found again by the token, or counted once less.
func (r *runner) remember() {
	if err := r.folder.saveState(r.state); err != nil {
		r.log.Error("could not remember the state of a process", slog.Any("error", err))
	}
}

// tend looks after a running process: ends it when that is due, else brings its files up
// to date.
func (r *runner) tend(ctx context.Context) time.Duration {
	reason, trouble := r.reasonToStop(ctx)
	if reason == "" && !r.state.StopSince.IsZero() {
		reason = ReasonStopping // told to end already: what changed since then starts it again
	}
	if reason != "" {
		return r.stop(reason)
	}
	if p := r.placeLive(); p != nil {
		trouble = p
	}
	r.mu.Lock()
	lost := r.answer.Lost
	r.mu.Unlock()
	r.phase, r.reason, r.message = api.ProcessRunning, "", ""
	switch {
	case trouble != nil:
		r.reason, r.message = trouble.Reason, trouble.Message
		return trouble.Retry
	case lost:
		r.reason, r.message = ReasonNoAnswer, "the process runs but does not answer on its socket"
	}
	return 0
}

// reasonToStop is empty while the process may go on. A changed program replaces the running
// one only when everything that it needs is there: what cannot start must not stop what runs.
func (r *runner) reasonToStop(ctx context.Context) (reason string, trouble *problem) {
	switch {
	case r.order.Deleting:
		return ReasonDeleted, nil
	case r.order.Spec.State == api.StateStopped:
		return ReasonStopped, nil
	case ProgramHash(r.order.Spec.Program) == r.state.ProgramHash:
		return "", nil
	}
	if p := r.check(ctx, r.order.Spec.Program); p != nil {
		return "", p
	}
	return ReasonProgramChanged, nil
}

// stop asks the process to end and, after its grace, kills it.
func (r *runner) stop(reason string) time.Duration {
	now := time.Now()
	r.phase, r.reason, r.message = api.ProcessStopping, reason, ""
	if r.state.StopSince.IsZero() {
		r.state.StopSince, r.state.Killed = now, false
		r.remember()
		r.log.Info("asking a process to end", slog.String("reason", reason))
		if err := r.proc.Terminate(); err != nil {
			r.log.Error("could not ask a process to end", slog.Any("error", err))
		}
	}
	if left := r.state.StopSince.Add(r.grace()).Sub(now); left > 0 {
		return left
	}
	r.message = fmt.Sprintf("it did not end within %s and is being killed", r.grace())
	if !r.state.Killed {
		r.state.Killed = true
		r.remember()
	}
	if err := r.proc.Kill(); err != nil {
		r.log.Error("could not kill a process", slog.Any("error", err))
	}
	return time.Second
}

// grace of the program that runs; its successor's is not its business.
func (r *runner) grace() time.Duration {
	if r.state.Program == nil {
		return 0
	}
	return time.Duration(r.state.Program.StopGraceSeconds) * time.Second
}

// rest is Stopped, as asked.
func (r *runner) rest() {
	r.backoff.reset()
	r.phase, r.reason, r.message = api.ProcessStopped, ReasonStopped, ""
	if r.state.Killed {
		r.reason = ReasonStopTimeout
		r.message = fmt.Sprintf("it did not end within %s of being asked and was killed", r.grace())
	}
}

// launch starts the process, or says what is missing.
func (r *runner) launch(ctx context.Context) time.Duration {
	if left := r.backoff.left(time.Now()); left > 0 {
		r.phase = api.ProcessBackoff
		if r.reason != ReasonStartFailed && r.state.LastExit != nil {
			r.reason, r.message = r.state.LastExit.Reason, r.state.LastExit.Message
		}
		return left
	}
	program := r.order.Spec.Program
	trouble := r.check(ctx, program)
	if trouble != nil {
		// What ran last is better than nothing, if what is wanted cannot be had.
		last := r.state.Program
		if last == nil || trouble.Reason == ReasonUnpacking || ProgramHash(*last) == ProgramHash(program) || r.check(ctx, *last) != nil {
			return r.hold(api.ProcessPending, trouble)
		}
		program = *last
	}
	if p := r.prepare(program); p != nil {
		return r.hold(api.ProcessPending, p)
	}
	if p := r.start(ctx, program); p != nil {
		r.backoff.ended(time.Now(), 0)
		return min(r.hold(api.ProcessBackoff, p), r.backoff.left(time.Now()))
	}
	r.phase, r.reason, r.message = api.ProcessRunning, "", ""
	if trouble != nil {
		r.reason, r.message = trouble.Reason, trouble.Message
		return trouble.Retry
	}
	return 0
}

func (r *runner) hold(phase api.HostProcessState, p *problem) time.Duration {
	if r.reason != p.Reason || r.message != p.Message {
		r.log.Warn("process cannot go on", slog.String("reason", p.Reason), slog.String("message", p.Message))
	}
	r.phase, r.reason, r.message = phase, p.Reason, p.Message
	return p.Retry
}

// start notes the token first: if the agent is killed right after the start, its successor
// finds the process by it.
func (r *runner) start(ctx context.Context, program api.Program) *problem {
	r.mu.Lock()
	archive := r.archived[program.Archive]
	delete(r.archived, program.Archive) // the next start asks anew, so that damage is found
	r.mu.Unlock()
	root := ""
	if archive != nil {
		root = archive.root
	}
	hash := ProgramHash(program)
	if hash != r.state.ProgramHash {
		r.state.LastExit = nil // another program: what the last one did is over
	}
	token := newToken()
	r.state.Token, r.state.Identity, r.state.StopSince, r.state.Killed = token, identity{}, time.Time{}, false
	r.state.Program, r.state.ProgramHash = program.DeepCopy(), hash
	r.state.StartedAt = time.Now().Truncate(time.Second)
	if err := r.folder.saveState(r.state); err != nil {
		r.state.Token = ""
		return asProblem(err)
	}
	proc, err := r.execute(program, root, token)
	if err != nil {
		r.state.Token = ""
		r.remember()
		if p, ok := errors.AsType[*problem](err); ok {
			return p
		}
		return &problem{Reason: ReasonStartFailed, Message: err.Error(), Retry: backoffMost}
	}
	r.proc, r.state.Identity = proc, proc.Identity()
	r.remember()
	r.log.InfoContext(ctx, "started a process", slog.Int("pid", r.state.Identity.PID))
	r.watchAnswers(ctx)
	return nil
}

func (r *runner) execute(program api.Program, archive, token string) (_ process, err error) { //nolint:ireturn // the seam for tests
	user, err := lookupUser(program.User, r.users)
	if err != nil {
		return nil, err
	}
	if program.TerminationMessage != "" {
		// What is there is of an earlier run.
		if err := r.grounds().remove(program.TerminationMessage); err != nil {
			return nil, err
		}
	}
	output, err := r.folder.openOutput()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, output.Close()) }()
	path, err := r.executablePath(program.Args[0], archive)
	if err != nil {
		return nil, err
	}
	proc, err := r.system.Start(command{
		Path: path, Args: program.Args, Env: environment(program, archive, token), Dir: r.folder.run(),
		Output: output, OpenFiles: program.OpenFiles, User: user,
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return proc, nil
}

// executablePath is the agent's own binary, an absolute path, or a path in the archive.
func (r *runner) executablePath(name, archive string) (string, error) {
	switch {
	case name == ownBinary:
		return r.executable, nil
	case filepath.IsAbs(name):
		return name, nil
	case archive != "" && filepath.IsLocal(name):
		return filepath.Join(archive, name), nil
	default:
		return "", refused("program %q is neither castellan, an absolute path, nor in an archive", name)
	}
}

// newToken is random, so that nobody else's process carries it.
func newToken() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// clear removes what is left of a deleted process, and only then tells so.
func (r *runner) clear(ctx context.Context) (wait time.Duration, done bool) {
	if p := r.removeDirectories(); p != nil {
		return r.hold(api.ProcessStopping, p), false
	}
	if err := r.folder.remove(); err != nil {
		return r.hold(api.ProcessStopping, &problem{Reason: ReasonRemoveFailed, Message: err.Error(), Retry: 10 * time.Second}), false
	}
	r.leaving.Store(true)
	if err := r.removed(ctx, r.order); err != nil {
		r.log.WarnContext(ctx, "could not tell that a process is removed", slog.Any("error", err))
		return 2 * time.Second, false
	}
	r.log.InfoContext(ctx, "removed a process")
	return 0, true
}

func (r *runner) removeDirectories() *problem {
	if r.order.Spec.RemoveDirectories != api.DeletionDelete {
		return nil
	}
	for _, path := range r.order.Spec.Directories {
		if err := r.grounds().removeDirectory(path); err != nil {
			return &problem{Reason: ReasonRemoveFailed, Message: err.Error(), Retry: 10 * time.Second}
		}
	}
	return nil
}

func (r *runner) grounds() grounds {
	return grounds{own: r.folder.run(), dataRoots: r.dataRoots}
}

// tell publishes what is known, if it is news.
func (r *runner) tell() {
	if r.order.Name == "" {
		return
	}
	now := publication{uid: string(r.order.UID), status: r.status()}
	if r.published != nil && r.published.uid == now.uid && equality.Semantic.DeepEqual(r.published.status, now.status) {
		return
	}
	r.published = &now
	r.publish(r.order, *now.status.DeepCopy())
}

func (r *runner) status() api.HostProcessStatus {
	s := api.HostProcessStatus{
		ObservedGeneration: r.order.Generation,
		State:              r.phase,
		Reason:             r.reason,
		Message:            r.message,
		SecretsDigest:      r.state.SecretsDigest,
		Restarts:           r.state.Restarts,
		LastExit:           r.state.LastExit,
	}
	if r.proc == nil {
		return s
	}
	started := metav1.NewTime(r.state.StartedAt)
	s.PID, s.StartedAt, s.ProgramHash = int32(r.proc.Identity().PID), &started, r.state.ProgramHash //nolint:gosec // a pid, exit code or descriptor fits
	r.mu.Lock()
	defer r.mu.Unlock()
	s.Report = r.answer.Report
	s.Ready = r.answer.Ready && r.phase == api.ProcessRunning
	return s
}

// wanted archives of a program; asking is repeated after a failure.
func (r *runner) archive(ctx context.Context, digest string) *problem {
	if digest == "" {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	a := r.archived[digest]
	if a == nil || (a.done && a.err != nil && !time.Now().Before(a.retryAt)) {
		a = &archive{}
		r.archived[digest] = a
		r.owned.Go(func() { r.fetch(ctx, digest, a) })
	}
	switch {
	case !a.done:
		return &problem{Reason: ReasonUnpacking, Message: "unpacking " + digest}
	case a.err != nil:
		return &problem{Reason: ReasonArchive, Message: a.err.Error(), Retry: max(time.Until(a.retryAt), time.Second)}
	default:
		return nil
	}
}

func (r *runner) fetch(ctx context.Context, digest string, a *archive) {
	root, err := r.archives.Unpacked(ctx, digest)
	r.mu.Lock()
	a.done, a.root, a.err, a.retryAt = true, root, err, time.Now().Add(30*time.Second)
	r.mu.Unlock()
	r.nudge()
}

// retryArchives lets failed archives be asked for at once.
func (r *runner) retryArchives() {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.archived, func(_ string, a *archive) bool { return a.done && a.err != nil })
}
