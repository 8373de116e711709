package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
)

// clusterView is one KafkaCluster with what belongs to it.
type clusterView struct {
	Namespace  string               `json:"namespace"`
	Name       string               `json:"name"`
	Version    string               `json:"version,omitempty"`
	State      api.RunState         `json:"state"`
	Ready      bool                 `json:"ready"`
	Doing      string               `json:"doing,omitempty"`
	Conditions []metav1.Condition   `json:"conditions,omitempty"`
	Operations []operationView      `json:"operations,omitempty"`
	Nodes      []nodeView           `json:"nodes,omitempty"`
	Listeners  []api.ListenerStatus `json:"listeners,omitempty"`
	Operators  []operatorView       `json:"operators,omitempty"`
	Events     []eventView          `json:"events,omitempty"`
	// Unknown is what could not be read, and why.
	Unknown []string `json:"unknown,omitempty"`
}

// operationView is one Operation that is not over.
type operationView struct {
	Name    string              `json:"name"`
	Type    api.OperationType   `json:"type"`
	Phase   string              `json:"phase"`
	Steps   api.OperationSteps  `json:"steps"`
	Moves   *api.OperationMoves `json:"moves,omitempty"`
	Message string              `json:"message,omitempty"`
}

// nodeView is one KafkaNode in a line.
type nodeView struct {
	Name     string        `json:"name"`
	ID       int32         `json:"id"`
	Roles    string        `json:"roles"`
	State    api.NodeState `json:"state"`
	Ready    bool          `json:"ready"`
	Restarts int32         `json:"restarts"`
	// On is the Kubernetes node or the Host.
	On   string `json:"on,omitempty"`
	Rack string `json:"rack,omitempty"`
	// Why it is not ready.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

// operatorView is one Deployment of Castellan's operator.
type operatorView struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Ready     int32  `json:"ready"`
	Desired   int32  `json:"desired"`
	Image     string `json:"image"`
	Message   string `json:"message,omitempty"`
}

func statusCommand(o *options) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [CLUSTER]",
		Short: "Show what runs on this machine, or how a KafkaCluster is",
		Long: `Show how a KafkaCluster is, wherever it runs: conditions, nodes and what each waits for,
listeners, the operator, and the events of the last ` + recent.String() + `.

With nothing named (no CLUSTER, -n, --context or --kubeconfig) it shows what castellan up has
started on this machine; as a kubectl plugin it always shows KafkaClusters.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output, "json", "yaml"); err != nil {
				return err
			}
			named := len(args) > 0 || o.namespace != "" || o.context != "" || o.kubeconfig != ""
			if !named && !o.Plugin && o.LocalStatus != nil {
				return o.LocalStatus(cmd.Context(), o.Out, o.dir, output)
			}
			return o.status(cmd.Context(), strings.Join(args, ""), output)
		},
	}
	o.addNamespace(cmd)
	addOutput(cmd.Flags(), &output, "json", "yaml")
	return cmd
}

func (o *options) status(ctx context.Context, name, output string) error {
	c, _, namespace, err := o.objects()
	if err != nil {
		return err
	}
	cluster, err := findCluster(ctx, c, namespace, name, "name one")
	if err != nil {
		return err
	}
	v := &clusterView{
		Namespace: cluster.Namespace, Name: cluster.Name, Version: cmp.Or(cluster.Status.Version, cluster.Spec.Version),
		State: cluster.Spec.State, Doing: cluster.Status.Doing, Conditions: cluster.Status.Conditions, Listeners: cluster.Status.Listeners,
		Ready: meta.IsStatusConditionTrue(cluster.Status.Conditions, api.ConditionReady),
	}
	if err := v.readNodes(ctx, c); err != nil {
		return err
	}
	v.readOperations(ctx, c)
	if inPods(cluster) {
		v.readOperators(ctx, c)
	}
	v.readEvents(ctx, c, time.Now())
	if output != "" {
		return printData(o.Out, output, v)
	}
	return v.print(o.Out)
}

func (v *clusterView) readNodes(ctx context.Context, c client.Client) error {
	var nodes api.KafkaNodeList
	if err := c.List(ctx, &nodes, client.InNamespace(v.Namespace)); err != nil {
		return fmt.Errorf("list the KafkaNodes of namespace %s: %w", v.Namespace, err)
	}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		if n.Spec.ClusterName != v.Name {
			continue
		}
		view := nodeView{
			Name: n.Name, ID: n.Spec.NodeID, Roles: n.Status.Roles, State: cmp.Or(n.Status.State, api.NodePending), Ready: n.Status.Ready,
			Restarts: n.Status.Restarts, On: n.Spec.Host, Rack: n.Status.Rack, Reason: n.Status.Reason, Message: n.Status.Message,
		}
		if p := n.Status.Placement; p != nil {
			view.On, view.Rack = p.Node, cmp.Or(view.Rack, p.Zone)
		}
		v.Nodes = append(v.Nodes, view)
	}
	slices.SortFunc(v.Nodes, func(a, b nodeView) int { return cmp.Compare(a.ID, b.ID) })
	return nil
}

// readOperations reads what is being done, as far as this user may know.
func (v *clusterView) readOperations(ctx context.Context, c client.Client) {
	ops, err := activeOf(ctx, c, v.Namespace, v.Name)
	if err != nil {
		v.Unknown = append(v.Unknown, fmt.Sprintf("what is being done: %v", err))
		return
	}
	for i := range ops {
		s := &ops[i].Status
		v.Operations = append(v.Operations, operationView{
			Name: ops[i].Name, Type: ops[i].Spec.Type, Phase: phaseOf(&ops[i]), Steps: s.Steps, Moves: s.Moves, Message: s.Message,
		})
	}
}

// Where the operator is looked for: by its label everywhere, else in its usual namespace.
const (
	operatorLabel     = "app.kubernetes.io/name"
	componentLabel    = "app.kubernetes.io/component"
	operatorComponent = "operator"
	operatorName      = "castellan"
	operatorNamespace = "castellan-system"
)

// readOperators says how the operator is, as far as this user may know.
func (v *clusterView) readOperators(ctx context.Context, c client.Client) {
	var list appsv1.DeploymentList
	labels := client.MatchingLabels{operatorLabel: operatorName, componentLabel: operatorComponent}
	err := c.List(ctx, &list, labels)
	if apierrors.IsForbidden(err) {
		err = c.List(ctx, &list, labels, client.InNamespace(operatorNamespace))
	}
	if err != nil {
		v.Unknown = append(v.Unknown, fmt.Sprintf("how the operator is: %v", err))
		return
	}
	for i := range list.Items {
		d := &list.Items[i]
		view := operatorView{Namespace: d.Namespace, Name: d.Name, Ready: d.Status.ReadyReplicas, Desired: 1}
		if d.Spec.Replicas != nil {
			view.Desired = *d.Spec.Replicas
		}
		if containers := d.Spec.Template.Spec.Containers; len(containers) > 0 {
			view.Image = containers[0].Image
		}
		for _, condition := range d.Status.Conditions {
			if condition.Type == appsv1.DeploymentAvailable && condition.Status == corev1.ConditionFalse {
				view.Message = condition.Message
			}
		}
		v.Operators = append(v.Operators, view)
	}
	if len(list.Items) == 0 {
		v.Unknown = append(v.Unknown, "how the operator is: no Deployment with the label "+operatorLabel+"="+operatorName+" was found")
	}
}

// recent is how old an event may be to be shown, eventLimit how many are.
const (
	recent     = 15 * time.Minute
	eventLimit = 20
)

// eventView is one event of something of the cluster.
type eventView struct {
	At      metav1.Time `json:"at"`
	Type    string      `json:"type"`
	Object  string      `json:"object"`
	Reason  string      `json:"reason"`
	Message string      `json:"message"`
	Count   int32       `json:"count,omitempty"`
}

// readEvents reads what was lately told of the cluster's objects, the newest last.
func (v *clusterView) readEvents(ctx context.Context, c client.Client, now time.Time) {
	var list corev1.EventList
	options := &client.ListOptions{Namespace: v.Namespace, Limit: pageSize}
	for {
		var page corev1.EventList
		if err := c.List(ctx, &page, options); err != nil {
			v.Unknown = append(v.Unknown, fmt.Sprintf("the events: %v", err))
			return
		}
		list.Items = append(list.Items, page.Items...)
		if options.Continue = page.Continue; options.Continue == "" {
			break
		}
	}
	for i := range list.Items {
		e := &list.Items[i]
		at := eventTime(e)
		if now.Sub(at.Time) > recent || !v.owns(e.InvolvedObject) {
			continue
		}
		v.Events = append(v.Events, eventView{
			At: at, Type: e.Type, Object: e.InvolvedObject.Kind + "/" + e.InvolvedObject.Name, Reason: e.Reason, Message: e.Message, Count: e.Count,
		})
	}
	slices.SortFunc(v.Events, func(a, b eventView) int { return a.At.Compare(b.At.Time) })
	v.Events = v.Events[max(0, len(v.Events)-eventLimit):]
}

func eventTime(e *corev1.Event) metav1.Time {
	switch {
	case e.Series != nil:
		return metav1.NewTime(e.Series.LastObservedTime.Time)
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp
	case !e.EventTime.IsZero():
		return metav1.NewTime(e.EventTime.Time)
	default:
		return e.CreationTimestamp
	}
}

// owns says whether an object is the cluster or of one of its nodes.
func (v *clusterView) owns(o corev1.ObjectReference) bool {
	if o.Kind == "KafkaCluster" {
		return o.Name == v.Name
	}
	return slices.ContainsFunc(v.Nodes, func(n nodeView) bool {
		switch o.Kind {
		case "KafkaNode", "StatefulSet":
			return o.Name == n.Name
		case "Pod":
			return o.Name == n.Name+"-0"
		case "PersistentVolumeClaim":
			return strings.HasSuffix(o.Name, "-"+n.Name) || strings.Contains(o.Name, "-"+n.Name+"-r")
		default:
			return false
		}
	})
}
