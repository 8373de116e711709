package csi

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
	"k8s.io/mount-utils"

	"castellan.dev/castellan/test/kube/internal/csi/driver"
)

// Options say where one node keeps its volumes and how to reach the kubelet and the API server.
type Options struct {
	Node       string
	Kubeconfig string
	Volumes    string // directory of the volumes' files
	Kubelet    string // the kubelet's root directory
}

// Serve runs until ctx ends or a part fails.
func Serve(ctx context.Context, o Options) error {
	config, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("make a client: %w", err)
	}
	if err := os.MkdirAll(o.Volumes, 0o750); err != nil {
		return fmt.Errorf("make the directory of volumes: %w", err)
	}
	n := &node{
		name: o.Node, socket: filepath.Join(o.Kubelet, "plugins", driver.Name, "csi.sock"),
		disk: disk{dir: o.Volumes, mounter: mount.New("")},
	}
	go provision(ctx, client, &provisioner{node: o.Node, disk: n.disk})
	go resize(ctx, client, o.Node)

	ended := make(chan error, 2)
	plugin := grpc.NewServer()
	csi.RegisterIdentityServer(plugin, n)
	csi.RegisterNodeServer(plugin, n)
	// The driver first: the kubelet calls it as soon as it sees the other socket.
	if err := serve(plugin, n.socket, ended); err != nil {
		return err
	}
	registrar := grpc.NewServer()
	registration.RegisterRegistrationServer(registrar, n)
	if err := serve(registrar, filepath.Join(o.Kubelet, "plugins_registry", driver.Name+"-reg.sock"), ended); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		return fmt.Errorf("serve the driver: %w", err)
	}
}

func serve(server *grpc.Server, socket string, ended chan<- error) error {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return fmt.Errorf("make the directory of a socket: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the old socket: %w", err)
	}
	listener, err := net.Listen("unix", socket) //nolint:noctx // local and at once
	if err != nil {
		return fmt.Errorf("listen on %s: %w", socket, err)
	}
	go func() { ended <- server.Serve(listener) }()
	return nil
}
