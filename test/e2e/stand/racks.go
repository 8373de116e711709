package stand

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"castellan.dev/castellan/core/host"
	"castellan.dev/castellan/packages"
	hostsub "castellan.dev/castellan/substrate/host"
)

// racks are the racks of a stand that has some: each is one Host, all of them this machine.
func racks() []string { return []string{"a", "b", "c"} }

// OnRacks is a cluster's YAML whose pools have so many nodes at most on the host of each rack, see [Options.Racks].
func OnRacks(yaml string, perHost int) string {
	var names []string
	for _, rack := range racks() {
		names = append(names, rackHost(rack))
	}
	placement := fmt.Sprintf("hosts: {names: [%s], maxPerHost: %d}", strings.Join(names, ", "), perHost)
	return regexp.MustCompile(`hosts: \{maxPerHost: \d+\}`).ReplaceAllString(yaml, placement)
}

func rackHost(rack string) string { return "host-" + rack }

// upOnRacks brings up a Castellan without a cluster, enrols a host for each rack, and then applies the cluster.
func (s *Stand) upOnRacks() {
	s.tb.Helper()
	yaml := s.options.Cluster
	var hosts []string
	each := (s.ports.To - s.ports.From + 1) / int32(len(racks())) //nolint:gosec // three
	for i, rack := range racks() {
		from := s.ports.From + int32(i)*each
		hosts = append(hosts, fmt.Sprintf(`apiVersion: castellan.dev/v1alpha1
kind: Host
metadata: {name: %s}
spec:
  address: 127.0.0.1
  rack: %s
  allowedNamespaces: ["*"]
  dataRoots: [%s]
  portRange: {from: %d, to: %d}
  listenerPorts: FromRange
`, rackHost(rack), rack, s.rackData(rack), from, from+each-1))
	}
	s.options.Cluster = strings.Join(hosts, "---\n")
	s.Up()
	for _, rack := range racks() {
		s.startAgent(rack)
	}
	s.options.Cluster = yaml
	s.Apply(yaml)
	s.WaitReady()
}

func (s *Stand) rackData(rack string) string { return filepath.Join(string(s.dir), "data-"+rack) }

// startAgent enrols the host of a rack as an administrator would, and starts its agent.
func (s *Stand) startAgent(rack string) {
	s.tb.Helper()
	name := Agent + "-" + rack
	store, err := packages.DefaultDir()
	if err != nil {
		s.tb.Fatal(err)
	}
	if err := os.MkdirAll(s.rackData(rack), 0o700); err != nil {
		s.tb.Fatal(err)
	}
	log, err := os.Create(s.dir.Log(name))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the process has its own
	program, args := s.onVolumes(rack, filepath.Join(s.bin, "castellan"), "agent", "--host", rackHost(rack), "--kubeconfig", s.enrol(rack),
		"--state", filepath.Join(string(s.dir), name), "--data-root", s.rackData(rack), "--packages", store)
	cmd := exec.CommandContext(context.Background(), program, args...) //nolint:gosec // the stand's own binary
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		s.tb.Fatalf("start the agent of rack %s: %v", rack, err)
	}
	s.agents = append(s.agents, cmd)
	ticks, _ := startTicks(cmd.Process.Pid)
	record, err := json.Marshal(process{PID: cmd.Process.Pid, Ticks: ticks, Boot: bootID()})
	if err == nil {
		err = os.WriteFile(filepath.Join(string(s.dir), "run", name+".json"), record, 0o600)
	}
	if err != nil {
		s.tb.Fatalf("write down which process the agent of rack %s is: %v", rack, err)
	}
}

// onVolumes wraps the command of a rack's agent so that it, and the nodes that it starts, see a file system of its own
// for each node, see [Options.VolumeSize]. Which node comes to which rack is not known yet.
func (s *Stand) onVolumes(rack, program string, args ...string) (wrapper string, wrapped []string) {
	if s.options.VolumeSize == 0 {
		return program, args
	}
	wrapped = []string{"--mount"}
	if os.Geteuid() != 0 {
		wrapped = append(wrapped, "--user", "--map-root-user")
	}
	var script strings.Builder
	for _, first := range []int32{0, 100} {
		for id := first; id < first+10; id++ {
			volume := filepath.Dir(host.Path(s.rackData(rack), s.cluster.Namespace, s.cluster.Name, id, "any"))
			fmt.Fprintf(&script, "mkdir -p '%s' && mount -t tmpfs -o size=%d,mode=700 tmpfs '%[1]s' && ", volume, s.options.VolumeSize)
		}
	}
	wrapped = append(wrapped, "sh", "-c", script.String()+`exec "$@"`, "sh", program)
	return "unshare", append(wrapped, args...)
}

// SeenIn is a path of a rack's host as its agent sees it, with [Options.VolumeSize].
func (s *Stand) SeenIn(rack, path string) string {
	s.tb.Helper()
	return filepath.Join("/proc", strconv.Itoa(s.MustPID(Agent+"-"+rack)), "root", path)
}

// enrol gives the agent of a rack its account, and returns its kubeconfig.
func (s *Stand) enrol(rack string) string {
	s.tb.Helper()
	ctx, c := s.tb.Context(), s.Client()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: host.Namespace(rackHost(rack)), Name: "agent"}}
	subject := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}
	for _, o := range append(hostsub.Enrolment(rackHost(rack), subject), account) {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			s.tb.Fatalf("enrol the host of rack %s: %v", rack, err)
		}
	}
	lifetime := int64(24 * time.Hour / time.Second)
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &lifetime}}
	if err := c.SubResource("token").Create(ctx, account, request); err != nil {
		s.tb.Fatalf("request a token for the agent of rack %s: %v", rack, err)
	}
	config, err := clientcmd.LoadFromFile(s.dir.Kubeconfig())
	if err != nil {
		s.tb.Fatal(err)
	}
	for user := range config.AuthInfos {
		config.AuthInfos[user] = &clientcmdapi.AuthInfo{Token: request.Status.Token}
	}
	file := filepath.Join(string(s.dir), Agent+"-"+rack+".kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		s.tb.Fatal(err)
	}
	return file
}

// stopAgents ends the agents of racks; what they ran was stopped before.
func (s *Stand) stopAgents() {
	for _, cmd := range s.agents {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			s.tb.Errorf("stop the agent of a rack: %v", err)
		}
	}
	for _, cmd := range s.agents {
		if err := cmd.Wait(); err != nil {
			s.tb.Errorf("the agent of a rack: %v", err)
		}
	}
}

// rackAgents are the processes of the agents of racks as the stand's folder has them on record.
func (s *Stand) rackAgents() []process {
	var all []process
	for _, rack := range racks() {
		all = append(all, s.recorded(Agent+"-"+rack))
	}
	return all
}
