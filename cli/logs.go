package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type logOptions struct {
	*options
	cluster    string
	follow     bool
	tail       int
	supervisor bool
	previous   bool
}

func logsCommand(o *options) *cobra.Command {
	l := &logOptions{options: o}
	cmd := &cobra.Command{
		Use:   "logs NODE",
		Short: "Print the log of a Kafka node",
		Long: `Print the log of a Kafka node: of one that runs on this machine, found below --dir, else of
one that is a pod. With --kubeconfig or --context, and as a kubectl plugin, pods come first.

NODE is a node id (101) or the name of a KafkaNode (orders-101). --supervisor prints what
starts and watches the node instead of Kafka's own log; in a pod both are one log.
--previous prints what a pod's container logged before it was last restarted.`,
		Example: "  castellan logs 0 --follow\n  castellan logs kafka-1 --tail 20 --supervisor",
		Args:    cobra.ExactArgs(1),
		RunE:    func(cmd *cobra.Command, args []string) error { return l.run(cmd.Context(), args[0]) },
	}
	o.addNamespace(cmd)
	cmd.Flags().StringVar(&l.cluster, "cluster", "", "cluster of the node, when several have that id")
	cmd.Flags().BoolVarP(&l.follow, "follow", "f", false, "go on as lines come")
	cmd.Flags().IntVar(&l.tail, "tail", -1, "only the last lines, so many")
	cmd.Flags().BoolVar(&l.supervisor, "supervisor", false, "the log of the node's supervisor")
	cmd.Flags().BoolVarP(&l.previous, "previous", "p", false, "the log of a pod's container before its last restart")
	return cmd
}

func (l *logOptions) run(ctx context.Context, node string) error {
	if l.previous && l.supervisor {
		return usagef("--previous is for pods, whose log is one: leave --supervisor out")
	}
	if l.previous || l.Plugin || l.kubeconfig != "" || l.context != "" {
		pod, err := l.findPod(ctx, node)
		if pod != nil || err != nil {
			return l.printPod(ctx, pod, err)
		}
		return l.printHost(ctx, node)
	}
	err := l.printHost(ctx, node)
	if _, none := errors.AsType[*NotFoundError](err); !none {
		return err
	}
	// What the API says counts only where it knows the node as a pod.
	if pod, _ := l.findPod(ctx, node); pod != nil {
		return l.printPod(ctx, pod, nil)
	}
	return err
}

// printHost prints the log of a node of this machine.
func (l *logOptions) printHost(ctx context.Context, node string) error {
	folder, err := l.find(node)
	if err != nil {
		return err
	}
	path := logFile(folder, l.supervisor)
	file, err := os.Open(path) //nolint:gosec // below the user's own --dir
	if errors.Is(err, fs.ErrNotExist) {
		return &NotFoundError{Message: fmt.Sprintf("node %s has no log yet: %s does not exist", node, path)}
	}
	if err != nil {
		return fmt.Errorf("open the log of node %s: %w", node, err)
	}
	defer func() { _ = file.Close() }()
	if l.tail >= 0 {
		if err := seekTail(file, l.tail); err != nil {
			return fmt.Errorf("read the log of node %s: %w", node, err)
		}
	}
	if _, err := io.Copy(l.Out, file); err != nil {
		return fmt.Errorf("print the log of node %s: %w", node, err)
	}
	if !l.follow {
		return nil
	}
	return follow(ctx, l.Out, path, file)
}

// find looks among the processes of this machine's agent for the node's.
func (l *logOptions) find(node string) (string, error) {
	root := filepath.Join(l.dir, "agent", "processes")
	entries, err := os.ReadDir(root)
	if err != nil {
		return "", &NotFoundError{Message: fmt.Sprintf("no node has run on this machine below %s (--dir): %v", l.dir, err)}
	}
	var all, found []string
	for _, e := range entries {
		n, ok := readNode(filepath.Join(root, e.Name()))
		if !ok {
			continue
		}
		all = append(all, n.name())
		if n.matches(node, l.cluster, l.namespace) {
			found = append(found, filepath.Join(root, e.Name()))
		}
	}
	slices.Sort(all)
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", &NotFoundError{Message: fmt.Sprintf("no node %s on this machine; there are: %s", node, strings.Join(all, ", "))}
	default:
		return "", usagef("several nodes are called %s: choose with --cluster or --namespace among %s", node, strings.Join(all, ", "))
	}
}

// seekTail moves to where the last n lines begin.
func seekTail(file *os.File, n int) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	const step = 64 << 10
	// The newline that ends the last line does not begin another one.
	for position, seen := end, -1; position > 0; {
		size := min(step, position)
		position -= size
		chunk := make([]byte, size)
		if _, err := file.ReadAt(chunk, position); err != nil {
			return err
		}
		for i := bytes.LastIndexByte(chunk, '\n'); i >= 0; i = bytes.LastIndexByte(chunk[:i], '\n') {
			if seen++; seen == n {
				_, err := file.Seek(position+int64(i)+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = file.Seek(0, io.SeekStart)
	return err
}

const followPoll = 250 * time.Millisecond

// follow prints what is appended until ctx ends, and goes over to the new file when the log is rotated.
func follow(ctx context.Context, out io.Writer, path string, file *os.File) error {
	ticker := time.NewTicker(followPoll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, err := io.Copy(out, file); err != nil {
			return fmt.Errorf("print the log: %w", err)
		}
		rotated, err := replaced(path, file)
		if err != nil || !rotated {
			continue // between two names
		}
		next, err := os.Open(path) //nolint:gosec // the same file under its new content
		if err != nil {
			continue
		}
		defer func() { _ = next.Close() }()
		file = next
	}
}

func replaced(path string, file *os.File) (bool, error) {
	now, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	return !os.SameFile(now, open), nil
}

// nodeOnDisk is a node as its process's folder names it.
type nodeOnDisk struct {
	Namespace string `json:"namespace"`
	Cluster   string `json:"clusterName"`
	ID        int32  `json:"nodeID"`
}

func (n nodeOnDisk) name() string { return n.Cluster + "-" + strconv.Itoa(int(n.ID)) }

func (n nodeOnDisk) matches(node, cluster, namespace string) bool {
	if cluster != "" && cluster != n.Cluster || namespace != "" && namespace != n.Namespace {
		return false
	}
	return node == strconv.Itoa(int(n.ID)) || node == n.name()
}
