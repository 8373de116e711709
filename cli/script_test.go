package cli_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	api "castellan.dev/castellan/api/v1alpha1"
	"castellan.dev/castellan/cli"
	"castellan.dev/castellan/controlplanetest"
	"castellan.dev/castellan/kafka/kafkatest"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard()) // as the program does
	klog.SetLogger(logr.Discard())
	testscript.Main(m, map[string]func(){"castellan": castellan, "kubectl-castellan": castellan})
}

// castellan is the command as a script runs it.
func castellan() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	root := cli.New(cli.Config{
		Version: "1.2.3", In: os.Stdin, Out: os.Stdout, Err: os.Stderr,
		Getenv: os.Getenv, DefaultDir: filepath.Join(os.Getenv("WORK"), "castellan"), Preview: fakePreview,
		Plugin: filepath.Base(os.Args[0]) == "kubectl-castellan", Interactive: os.Getenv("TERMINAL") != "", Forward: fakeForward,
		LocalStatus: func(_ context.Context, out io.Writer, dir, _ string) error {
			_, err := fmt.Fprintln(out, "this machine: "+filepath.Base(dir))
			return err
		},
	})
	code := cli.Execute(ctx, root)
	stop()
	os.Exit(code)
}

// fakePreview stands for the engine: it shows that the server's defaults have arrived.
func fakePreview(_ context.Context, _ *rest.Config, c *api.KafkaCluster) (cli.PlanView, error) {
	if c.Spec.Version == "9.9.9" {
		return cli.PlanView{Problems: []string{"spec.version: nobody provides Kafka 9.9.9; use 4.3.1"}}, nil
	}
	return cli.PlanView{
		Warnings: []string{"spec.pools[0].replicas: two controllers survive no loss"},
		Steps:    []cli.PlanStep{{What: "CreateNode node 0", Reason: "pool " + c.Spec.Pools[0].Name + " wants it " + string(c.Spec.State)}},
		Blocked:  []cli.PlanStep{{What: "WaitForHost", Reason: "no Host allows namespace " + c.Namespace}},
	}, nil
}

func TestScripts(t *testing.T) {
	config := controlplanetest.Start(t)
	kubeconfig := writeKubeconfig(t, config)
	objects := controlplanetest.Client(t, config)
	fake := kafkatest.NewFake(t, kafkatest.Config{Brokers: 1})
	brokers := strings.Join(fake.Brokers.ListenAddrs(), ",")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("KUBECONFIG", kubeconfig)
			e.Setenv("BROKERS", brokers)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": exits,
			"pods": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(makePods(t.Context(), objects, args[0], args[1]))
			},
			"given": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(given(t.Context(), objects, ts.ReadFile(args[0])))
			},
			"written-by": func(ts *testscript.TestScript, _ bool, args []string) {
				var op api.Operation
				ts.Check(objects.Get(t.Context(), client.ObjectKey{Namespace: args[0], Name: args[1]}, &op))
				if !slices.ContainsFunc(op.ManagedFields, func(f metav1.ManagedFieldsEntry) bool { return f.Manager == args[2] }) {
					ts.Fatalf("%s wrote nothing: %v", args[2], op.ManagedFields)
				}
			},
			"somebody-sets-replicas": func(ts *testscript.TestScript, _ bool, args []string) {
				var c api.KafkaCluster
				ts.Check(objects.Get(t.Context(), client.ObjectKey{Namespace: args[0], Name: args[1]}, &c))
				c.Spec.Pools[0].Replicas++
				ts.Check(objects.Update(t.Context(), &c, client.FieldOwner("somebody")))
			},
		},
	})
}

// given FILE makes the objects of a file as they are there, status included.
func given(ctx context.Context, c client.Client, text string) error {
	objects, err := cli.ReadObjects("-", strings.NewReader(text))
	if err != nil {
		return err
	}
	for _, o := range objects {
		status := o.Object["status"]
		before := o.DeepCopy()
		switch err := c.Get(ctx, client.ObjectKeyFromObject(o), before); {
		case apierrors.IsNotFound(err):
			err = c.Create(ctx, o, client.FieldOwner("given"))
			if err != nil {
				return err
			}
		case err != nil:
			return err
		default:
			o.SetResourceVersion(before.GetResourceVersion())
			if err := c.Update(ctx, o, client.FieldOwner("given")); err != nil {
				return err
			}
		}
		if status == nil {
			continue
		}
		o.Object["status"] = status
		if err := c.Status().Update(ctx, o, client.FieldOwner("given")); err != nil {
			return err
		}
	}
	return nil
}

// exits CODE COMMAND... runs a command that must end with a code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if err != nil {
		got = strings.TrimPrefix(err.Error(), "exit status ")
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func writeKubeconfig(t *testing.T, config *rest.Config) string {
	t.Helper()
	const name = "test"
	c := clientcmdapi.NewConfig()
	c.Clusters[name] = &clientcmdapi.Cluster{
		Server: config.Host, CertificateAuthority: config.CAFile, CertificateAuthorityData: config.CAData,
	}
	c.AuthInfos[name] = &clientcmdapi.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData,
		ClientCertificate: config.CertFile, ClientKey: config.KeyFile, Token: config.BearerToken,
	}
	c.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*c, file); err != nil {
		t.Fatal(err)
	}
	return file
}
