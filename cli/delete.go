package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

type deleteOptions struct {
	*options
	files          []string
	wait           bool
	timeout        time.Duration
	ignoreNotFound bool
}

// victim is one object to delete.
type victim struct {
	mapping         *meta.RESTMapping
	namespace, name string
}

func deleteCommand(o *options) *cobra.Command {
	d := &deleteOptions{options: o}
	cmd := &cobra.Command{
		Use:   "delete KIND NAME... | delete -f FILE",
		Short: "Delete objects and wait until they are gone",
		Long: `Delete objects and wait until they are gone.

Deleting a KafkaCluster stops its nodes in order. Its data stays unless its
spec.deletionPolicy is Delete; applying it again finds the data.`,
		Example: "  castellan delete kc orders\n  castellan delete -f cluster.yaml",
		RunE:    func(cmd *cobra.Command, args []string) error { return d.run(cmd.Context(), args) },
	}
	o.addNamespace(cmd)
	cmd.Flags().StringSliceVarP(&d.files, "filename", "f", nil, "file with objects to delete; - is standard input")
	cmd.Flags().BoolVar(&d.wait, "wait", true, "wait until the objects are gone")
	cmd.Flags().DurationVar(&d.timeout, "timeout", 10*time.Minute, "how long to wait")
	cmd.Flags().BoolVar(&d.ignoreNotFound, "ignore-not-found", false, "an object that does not exist is no failure")
	return cmd
}

func (d *deleteOptions) run(ctx context.Context, args []string) error {
	if len(d.files) == 0 && len(args) < 2 && (len(args) != 1 || !strings.Contains(args[0], "/")) {
		return usagef("name what to delete: KIND NAME, or -f FILE")
	}
	c, err := d.connect()
	if err != nil {
		return err
	}
	victims, err := d.victims(c, args)
	if err != nil {
		return err
	}
	var failures []error
	for _, v := range victims {
		if err := d.delete(ctx, c, v); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func (d *deleteOptions) victims(c *connection, args []string) ([]victim, error) {
	var victims []victim
	if len(d.files) > 0 {
		objects, err := d.readDocuments(d.files)
		if err != nil {
			return nil, err
		}
		for _, o := range objects {
			_, m, err := c.resource(o)
			if err != nil {
				return nil, err
			}
			victims = append(victims, victim{m, o.GetNamespace(), o.GetName()})
		}
		return victims, nil
	}
	if kind, name, ok := strings.Cut(args[0], "/"); ok {
		args = append([]string{kind, name}, args[1:]...)
	}
	m, err := c.mapping(args[0])
	if err != nil {
		return nil, err
	}
	for _, name := range args[1:] {
		victims = append(victims, victim{m, c.namespace, name})
	}
	return victims, nil
}

func (d *deleteOptions) delete(ctx context.Context, c *connection, v victim) error {
	resource := c.of(v.mapping, v.namespace)
	current, err := resource.Get(ctx, v.name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) && d.ignoreNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	uid := current.GetUID()
	err = resource.Delete(ctx, v.name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if d.wait {
		if err := d.awaitGone(ctx, c, v, uid); err != nil {
			return err
		}
	}
	fmt.Fprintf(d.Out, "%s deleted\n", title(v.mapping, v.name))
	return nil
}

func (d *deleteOptions) awaitGone(ctx context.Context, c *connection, v victim, uid types.UID) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	ticker := time.NewTicker(200 * time.Millisecond)
	defer ticker.Stop()
	told := time.Now()
	for {
		o, err := c.of(v.mapping, v.namespace).Get(ctx, v.name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) || err == nil && o.GetUID() != uid {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("wait until %s is gone: %w", title(v.mapping, v.name), err)
		}
		if err == nil && time.Since(told) > 8*time.Second {
			fmt.Fprintf(d.Err, "waiting until %s is gone; it still has %s\n", title(v.mapping, v.name), strings.Join(o.GetFinalizers(), ", "))
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is being deleted but not gone yet: %w", title(v.mapping, v.name), ctx.Err())
		case <-ticker.C:
		}
	}
}
