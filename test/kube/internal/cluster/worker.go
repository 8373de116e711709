package cluster

import (
	"fmt"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubelet "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"

	"castellan.dev/castellan/test/kube/internal/image"
	"castellan.dev/castellan/test/kube/internal/machine"
)

const (
	containerdSocket = "/run/containerd/containerd.sock"
	kubeletDir       = "/var/lib/kubelet"
	containerdDir    = "/var/lib/containerd"
)

// containerdConfig is for containerd 1.6 without CAP_SYS_RESOURCE, AppArmor and huge pages.
const containerdConfig = `version = 2
root = "` + containerdDir + `"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "` + image.PauseName + `"
  restrict_oom_score_adj = true
  disable_apparmor = true
  disable_hugetlb_controller = true
  tolerate_missing_hugetlb_controller = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "%s"
`

// cniConfig routes each pod over a cable of its own ("ptp"): a bridge would need br_netfilter for Services whose pod is on
// the same node, and would hide packets from the forward hook.
const cniConfig = `{"cniVersion":"1.0.0","name":"testkube","plugins":[
 {"type":"ptp","ipMasq":false,"mtu":1500,"ipam":{"type":"host-local","dataDir":"/run/cni-ipam","ranges":[[{"subnet":"%s"}]],"routes":[{"dst":"0.0.0.0/0"}]}},
 {"type":"portmap","capabilities":{"portMappings":true}}]}
`

// cgroupOf names the control group of a machine of the cluster.
func cgroupOf(cluster, m string) string { return "testkube-" + cluster + "-" + m }

// writeNode writes what the processes of a node read.
func writeNode(d Dir, cluster string, p place) error {
	dir := func(elements ...string) string { return d.path(append([]string{"nodes", p.name()}, elements...)...) }
	if err := makeDirs(dir("cni"), dir("kubelet"), dir("volumes"), dir("flex"), dir("varlog"), d.logs(p.name())); err != nil {
		return err
	}
	config, err := yaml.Marshal(kubeletConfig(cluster, p))
	if err != nil {
		return fmt.Errorf("encode the kubelet's configuration: %w", err)
	}
	for path, content := range map[string]string{
		dir("kubelet.yaml"):             string(config),
		dir("resolv.conf"):              "",
		dir("containerd.toml"):          fmt.Sprintf(containerdConfig, inside("nodes", p.name(), "cni")),
		dir("cni", "testkube.conflist"): fmt.Sprintf(cniConfig, p.pods()),
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	return nil
}

func kubeletConfig(cluster string, p place) *kubelet.KubeletConfiguration {
	name := p.name()
	return &kubelet.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubelet.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Address:  p.ip().String(),
		Authentication: kubelet.KubeletAuthentication{
			X509:      kubelet.KubeletX509Authentication{ClientCAFile: pkiFile("ca.crt")},
			Webhook:   kubelet.KubeletWebhookAuthentication{Enabled: new(true)},
			Anonymous: kubelet.KubeletAnonymousAuthentication{Enabled: new(false)},
		},
		Authorization: kubelet.KubeletAuthorization{Mode: kubelet.KubeletAuthorizationModeWebhook},
		TLSCertFile:   pkiFile(name + ".crt"), TLSPrivateKeyFile: pkiFile(name + ".key"),
		ContainerRuntimeEndpoint: "unix://" + containerdSocket,
		FailCgroupV1:             new(false),
		CgroupDriver:             "cgroupfs", CgroupRoot: "/" + cgroupOf(cluster, name), CgroupsPerQOS: new(true),
		EnforceNodeAllocatable: []string{"none"},
		ClusterDNS:             []string{dnsIP}, ClusterDomain: domain,
		ResolverConfig: new(inside("nodes", name, "resolv.conf")),
		OOMScoreAdj:    new(int32(0)),
		FailSwapOn:     new(false),
		// A node that comes or goes is noticed soon, and a volume that may grow does so in seconds.
		NodeLeaseDurationSeconds:  8,
		NodeStatusUpdateFrequency: metav1.Duration{Duration: 4 * time.Second},
		SyncFrequency:             metav1.Duration{Duration: 5 * time.Second},
		EvictionHard: map[string]string{
			"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
		},
		// Images come from archives: one that is removed never comes back.
		ImageGCHighThresholdPercent: new(int32(100)),
		VolumePluginDir:             inside("nodes", name, "flex"),
	}
}

func nodeSpec(d Dir, p place) machine.Spec {
	name := p.name()
	dir := func(elements ...string) string { return inside(append([]string{"nodes", name}, elements...)...) }
	return machine.Spec{
		Hostname: name, Home: string(d), Overlays: outer(),
		Binds: []machine.Bind{
			{From: "nodes/" + name + "/kubelet", To: kubeletDir},
			{From: "nodes/" + name + "/containerd", To: containerdDir},
			{From: "nodes/" + name + "/varlog", To: "/var/log"},
		},
		Processes: []machine.Process{
			containerdProcess(name, dir("containerd.toml")),
			process(name, "kubelet", []string{containerdSocket, apiAddress},
				"--config="+dir("kubelet.yaml"), "--kubeconfig="+pkiFile(name+".conf"), "--root-dir="+kubeletDir,
				"--cert-dir="+dir("certs"), "--hostname-override="+name, "--node-ip="+p.ip().String(),
				"--node-labels=topology.kubernetes.io/zone="+p.zone()+",topology.kubernetes.io/region="+region),
			process(name, "kube-proxy", []string{apiAddress},
				"--kubeconfig="+pkiFile("kube-proxy.conf"), "--proxy-mode=nftables", "--hostname-override="+name,
				"--cluster-cidr="+podNetwork, "--conntrack-max-per-core=0", "--conntrack-min=0", "--oom-score-adj=0"),
			{
				Name: "csi", After: []string{apiAddress}, Log: inside("logs", name, "csi.log"),
				Args: []string{
					inside("bin", "testkube-addons"), "csi", "--node=" + name, "--kubeconfig=" + pkiFile("csi.conf"),
					"--volumes=" + dir("volumes"), "--kubelet=" + kubeletDir,
				},
			},
		},
	}
}

func containerdProcess(m, config string) machine.Process {
	return machine.Process{Name: "containerd", Args: []string{"/usr/bin/containerd", "--config", config}, Log: inside("logs", m, "containerd.log")}
}
