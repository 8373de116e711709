package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/deploy"
	"castellan.dev/castellan/install"
	"castellan.dev/castellan/packages"
)

// onKubernetes is up and down in a Kubernetes cluster in place of this machine.
type onKubernetes struct {
	context    string
	expose     string
	properties string
	install.DownOptions
}

// Flags that say where, and those that go with one place only.
const kubernetesFlag = "kubernetes"

func (k *onKubernetes) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&k.context, kubernetesFlag, "", "context of the kubeconfig: in that Kubernetes cluster, not on this machine")
	flags.StringVarP(&k.Namespace, "namespace", "n", install.DefaultNamespace, "namespace of the KafkaCluster (with --kubernetes)")
	flags.StringVar(&k.OperatorNamespace, "operator-namespace", install.DefaultOperatorNamespace, "namespace of the operator (with --kubernetes)")
}

func (k *onKubernetes) addUpFlags(cmd *cobra.Command) {
	k.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&k.expose, "expose", "", "from where clients come: Internal, NodePort or LoadBalancer (with --kubernetes; default Internal)")
	flags.StringVar(&k.Shape.Image, "image", "", "image of Kafka (with --kubernetes; default apache/kafka of the version)")
	flags.StringVar(&k.OperatorImage, "operator-image", "", "image of the operator (with --kubernetes; default that of this release)")
	flags.StringVar(&k.Shape.StorageClass, "storage-class", "", "StorageClass of the volumes (with --kubernetes; default the default one)")
	flags.StringVar(&k.Shape.VolumeSize, "volume-size", "", "size of each node's volume (with --kubernetes; default 10Gi)")
	flags.StringVar(&k.properties, "client-properties", "", "file to write a client.properties to (with --kubernetes; default it is printed)")
}

func (k *onKubernetes) addDownFlags(cmd *cobra.Command) {
	k.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&k.Cluster, "cluster", "", "KafkaCluster to delete (with --kubernetes; default the only one of the namespace)")
	flags.BoolVar(&k.Operator, "operator", false, "remove the operator as well (with --kubernetes)")
}

// here says that this machine is meant. A flag that the chosen place does not know is refused.
func (k *onKubernetes) here(cmd *cobra.Command) (bool, error) {
	here := !cmd.Flags().Changed(kubernetesFlag)
	wrong := []string{"ports", "detach", "controlplane"}
	if here {
		wrong = []string{"namespace", "operator-namespace", "expose", "image", "operator-image", "storage-class", "volume-size", "client-properties", "cluster", "operator"}
	}
	for _, name := range wrong {
		if flag := cmd.Flags().Lookup(name); flag == nil || !flag.Changed {
			continue
		}
		if here {
			return here, &cli.UsageError{Err: fmt.Errorf("--%s goes with --%s", name, kubernetesFlag)}
		}
		return here, &cli.UsageError{Err: fmt.Errorf("--%s goes not with --%s", name, kubernetesFlag)}
	}
	if !here && k.context == "" {
		return here, &cli.UsageError{Err: errors.New("--kubernetes needs the name of a context: `kubectl config get-contexts` lists them")}
	}
	return here, nil
}

// reach finds the Kubernetes cluster in the kubeconfigs that kubectl reads.
func (k *onKubernetes) reach(cmd *cobra.Command, w wiring) error {
	config, err := cli.KubernetesConfig(os.Getenv, cmd.Flag("kubeconfig").Value.String(), k.context)
	if err != nil {
		return err
	}
	config.UserAgent = "castellan/" + w.version
	k.API, k.Context, k.Manifests = config, k.context, manifests
	return nil
}

func manifests(o install.ManifestOptions) ([]*unstructured.Unstructured, error) {
	return deploy.Objects(deploy.Options{Namespace: o.Namespace, Image: o.Image})
}

func (k *onKubernetes) up(cmd *cobra.Command, w wiring, file string, nodes int, version string, timeout time.Duration) error {
	expose := api.ExposureType(k.expose)
	switch expose {
	case "", api.ExposureInternal, api.ExposureNodePort, api.ExposureLoadBalancer:
	default:
		return &cli.UsageError{Err: fmt.Errorf("--expose %s: want Internal, NodePort or LoadBalancer", k.expose)}
	}
	if nodes < 0 {
		return &cli.UsageError{Err: fmt.Errorf("--nodes %d: at least 1 is needed", nodes)}
	}
	k.Shape.Nodes, k.Shape.KafkaVersion, k.Shape.Expose, k.Timeout = nodes, version, expose, timeout
	if err := k.reach(cmd, w); err != nil {
		return err
	}
	if file != "" {
		objects, err := cli.ReadObjects(file, cmd.InOrStdin())
		if err != nil {
			return err
		}
		k.Objects = objects
	}
	catalog, err := packages.Builtin()
	if err != nil {
		return fmt.Errorf("read the built-in versions: %w", err)
	}
	if versions := catalog.Versions(string(api.ProductKafka)); len(versions) > 0 {
		k.NewestKafka = versions[len(versions)-1]
	}
	progress := newProgress()
	k.Progress = progress
	running, err := install.Up(cmd.Context(), k.Options)
	progress.Close()
	if err != nil {
		return translate(err)
	}
	for i := range running {
		if err := running[i].Print(cmd.OutOrStdout()); err != nil {
			return fmt.Errorf("say what runs: %w", err)
		}
		if err := k.writeProperties(cmd, &running[i], len(running) > 1); err != nil {
			return err
		}
	}
	return nil
}

// writeProperties writes a client.properties, one file for each of several clusters.
func (k *onKubernetes) writeProperties(cmd *cobra.Command, r *install.Running, several bool) error {
	listener, content := r.Properties()
	if content == nil {
		return nil
	}
	if k.properties == "" {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "\n# client.properties for listener %s\n%s", listener, content)
		return err
	}
	file := k.properties
	if several {
		file = strings.TrimSuffix(file, ".properties") + "-" + r.Cluster.Namespace + "-" + r.Cluster.Name + ".properties"
	}
	if err := os.WriteFile(file, content, 0o600); err != nil {
		return fmt.Errorf("write the client's properties: %w", err)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "\nclient.properties for listener %s: %s\n", listener, file)
	return err
}

func (k *onKubernetes) down(ctx context.Context, cmd *cobra.Command, w wiring, timeout time.Duration) error {
	if err := k.reach(cmd, w); err != nil {
		return err
	}
	progress := newProgress()
	defer progress.Close()
	k.Progress, k.Timeout = progress, timeout
	return translate(install.Down(ctx, k.DownOptions))
}
