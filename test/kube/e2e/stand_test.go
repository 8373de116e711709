package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"castellan.dev/castellan/test/kube/internal/cluster"
	"castellan.dev/castellan/test/kube/internal/image"
	"castellan.dev/castellan/test/kube/internal/netns"
)

const (
	name      = "e2e"
	namespace = "default"
	patience  = 2 * time.Minute
)

// stand is a cluster of a test.
type stand struct {
	t      *testing.T
	dir    cluster.Dir
	client kubernetes.Interface
}

func (s *stand) testkube(args ...string) string {
	s.t.Helper()
	out, err := s.try(args...)
	if err != nil {
		s.t.Fatalf("testkube %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (s *stand) try(args ...string) (string, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "../../../bin/testkube", append(args[:1:1], append([]string{"--dir", string(s.dir)}, args[1:]...)...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// up starts the cluster and a client of it.
func (s *stand) up(args ...string) {
	s.t.Helper()
	s.t.Log(s.testkube(append([]string{"up", "--name", name}, args...)...))
	config, err := clientcmd.BuildConfigFromFlags("", s.dir.Kubeconfig())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.client, err = kubernetes.NewForConfig(config); err != nil {
		s.t.Fatal(err)
	}
}

// writeImage makes an image of this executable and returns its archive.
func writeImage(t *testing.T, name string) string {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.tar")
	img := image.Static{Name: name, Files: map[string][]byte{"probe": self}, Entrypoint: []string{"/probe", "probe"}}
	if err := img.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// eventually waits for a fact.
func eventually(t *testing.T, what string, check func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		case <-tick.C:
		}
	}
}

// pod is one that runs the probe; change adds to it.
func pod(name string, change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{
				Name: "probe", Image: probeImage, ImagePullPolicy: corev1.PullNever, Env: []corev1.EnvVar{{Name: "GOMEMLIMIT", Value: "20MiB"}},
				ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/name", Port: intstrOf(probePort)}}},
			}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: new(int64(1000)), FSGroup: new(int64(1000))},
		},
	}
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func onNode(node string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) { s.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

func withVolume(claim string) func(*corev1.PodSpec) {
	return func(s *corev1.PodSpec) {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: claim, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}})
		s.Containers[0].VolumeMounts = append(s.Containers[0].VolumeMounts, corev1.VolumeMount{Name: claim, MountPath: dataDir})
	}
}

func (s *stand) run(p *corev1.Pod) {
	s.t.Helper()
	if _, err := s.client.CoreV1().Pods(namespace).Create(s.t.Context(), p, metav1.CreateOptions{}); err != nil {
		s.t.Fatal(err)
	}
	s.awaitReady(p.Name)
}

func (s *stand) awaitReady(pod string) {
	s.t.Helper()
	eventually(s.t, "pod "+pod+" Ready", func(ctx context.Context) error {
		p, err := s.client.CoreV1().Pods(namespace).Get(ctx, pod, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
				return nil
			}
		}
		return fmt.Errorf("phase %s, %+v", p.Status.Phase, p.Status.ContainerStatuses)
	})
}

// ask calls a pod through the API server.
func (s *stand) ask(ctx context.Context, pod, path string, params map[string]string) (string, error) {
	out, err := s.client.CoreV1().Pods(namespace).ProxyGet("http", pod, fmt.Sprint(probePort), path, params).DoRaw(ctx)
	return string(out), err
}

func (s *stand) mustAsk(pod, path string, params map[string]string) string {
	s.t.Helper()
	out, err := s.ask(s.t.Context(), pod, path, params)
	if err != nil {
		s.t.Fatalf("ask %s for %s: %v %s", pod, path, err, out)
	}
	return out
}

func (s *stand) service(pod string, kind corev1.ServiceType, port int32) *corev1.Service {
	s.t.Helper()
	svc, err := s.client.CoreV1().Services(namespace).Create(s.t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: pod},
		Spec:       corev1.ServiceSpec{Type: kind, Selector: map[string]string{"app": pod}, Ports: []corev1.ServicePort{{Port: port, TargetPort: intstrOf(port)}}},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return svc
}

func (s *stand) claim(name, size string) {
	s.t.Helper()
	_, err := s.client.CoreV1().PersistentVolumeClaims(namespace).Create(s.t.Context(), &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
}

// outside is an HTTP client in the world outside the cluster's network.
func (s *stand) outside() *http.Client {
	s.t.Helper()
	status, err := cluster.ReadStatus(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			return netns.Dial(ctx, status.Ext.Pid, address)
		},
	}}
}

// checkNothingLeft looks for all that a cluster could leave on its host.
func (s *stand) checkNothingLeft() {
	s.t.Helper()
	var errs []error
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil || strings.Contains(string(mounts), string(s.dir)) {
		errs = append(errs, fmt.Errorf("mounts: %w %s", err, mounts))
	}
	if groups, err := filepath.Glob("/sys/fs/cgroup/*/testkube-" + name + "-*"); err != nil || len(groups) > 0 {
		errs = append(errs, fmt.Errorf("control groups: %w %v", err, groups))
	}
	links, err := net.Interfaces()
	if err != nil {
		errs = append(errs, err)
	}
	for _, l := range links {
		if l.Name == "br0" || strings.HasPrefix(l.Name, "node") || l.Name == "ext" {
			errs = append(errs, errors.New("link "+l.Name))
		}
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		errs = append(errs, err)
	}
	for _, c := range commands {
		if line, err := os.ReadFile(c); err == nil && strings.Contains(string(line), string(s.dir)) {
			errs = append(errs, fmt.Errorf("process %s: %q", c, line))
		}
	}
	loops, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		errs = append(errs, err)
	}
	for _, l := range loops {
		if file, err := os.ReadFile(l); err == nil && strings.Contains(string(file), string(s.dir)) {
			errs = append(errs, fmt.Errorf("loop device %s: %s", l, file))
		}
	}
	if err := errors.Join(errs...); err != nil {
		s.t.Errorf("left on the host:\n%v", err)
	}
}
