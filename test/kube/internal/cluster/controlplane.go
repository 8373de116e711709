package cluster

import (
	"castellan.dev/castellan/test/kube/internal/machine"
)

const controlPlane = "cp"

// outer is what every machine hides of its host: paths that are compiled into Kubernetes and containerd lie below.
func outer() []string { return []string{"/var/lib", "/opt"} }

func pkiFile(name string) string { return inside("pki", name) }

func process(m, name string, after []string, args ...string) machine.Process {
	return machine.Process{
		Name: name, Args: append([]string{inside("bin", "testkube"), name}, args...), After: after, Log: inside("logs", m, name+".log"),
	}
}

// controlPlaneSpec is etcd, the API server, the controllers and the scheduler.
func controlPlaneSpec(d Dir) machine.Spec {
	const etcd = "127.0.0.1:2379"
	afterAPI := []string{apiAddress}
	return machine.Spec{
		Hostname: "control-plane", Home: string(d), Overlays: outer(),
		Processes: []machine.Process{
			process(controlPlane, "etcd", nil, "--data-dir="+inside(controlPlane, "etcd"), "--listen=http://"+etcd),
			process(controlPlane, "kube-apiserver", []string{etcd}, apiServerFlags("http://"+etcd)...),
			process(controlPlane, "kube-controller-manager", afterAPI,
				"--kubeconfig="+pkiFile("kube-controller-manager.conf"),
				"--authentication-kubeconfig="+pkiFile("kube-controller-manager.conf"),
				"--authorization-kubeconfig="+pkiFile("kube-controller-manager.conf"),
				"--allocate-node-cidrs=false", "--leader-elect=false", "--use-service-account-credentials",
				// A dead node is noticed in 16 s instead of 50.
				"--node-monitor-grace-period=16s", "--node-monitor-period=2s",
				"--flex-volume-plugin-dir="+inside(controlPlane, "flex"),
				"--service-account-private-key-file="+pkiFile("sa.key"), "--root-ca-file="+pkiFile("ca.crt"),
				"--cluster-signing-cert-file="+pkiFile("ca.crt"), "--cluster-signing-key-file="+pkiFile("ca.key"),
				"--cert-dir="+inside(controlPlane, "certs"), "--bind-address=127.0.0.1"),
			process(controlPlane, "kube-scheduler", afterAPI,
				"--kubeconfig="+pkiFile("kube-scheduler.conf"),
				"--authentication-kubeconfig="+pkiFile("kube-scheduler.conf"),
				"--authorization-kubeconfig="+pkiFile("kube-scheduler.conf"),
				"--leader-elect=false", "--cert-dir="+inside(controlPlane, "certs"), "--bind-address=127.0.0.1"),
		},
	}
}

func apiServerFlags(etcd string) []string {
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=" + apiIP, "--advertise-address=" + apiIP,
		"--service-cluster-ip-range=" + serviceNetwork,
		"--client-ca-file=" + pkiFile("ca.crt"),
		"--tls-cert-file=" + pkiFile("apiserver.crt"), "--tls-private-key-file=" + pkiFile("apiserver.key"),
		"--kubelet-certificate-authority=" + pkiFile("ca.crt"),
		"--kubelet-client-certificate=" + pkiFile("apiserver-kubelet.crt"), "--kubelet-client-key=" + pkiFile("apiserver-kubelet.key"),
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + domain,
		"--service-account-key-file=" + pkiFile("sa.key"), "--service-account-signing-key-file=" + pkiFile("sa.key"),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged",
		"--default-not-ready-toleration-seconds=15", "--default-unreachable-toleration-seconds=15",
		// No kube-proxy runs here: the API server goes to the endpoints of a Service itself, for webhooks too.
		"--enable-aggregator-routing=true",
	}
}
