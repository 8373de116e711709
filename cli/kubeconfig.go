package cli

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Where a kubeconfig is looked for, in this order.
const (
	orderOwn    = "$KUBECONFIG, then DIR/kubeconfig, then ~/.kube/config"
	orderPlugin = "$KUBECONFIG, then ~/.kube/config, then DIR/kubeconfig"
)

// order says where a kubeconfig is looked for.
func (o *options) order() string {
	if o.Plugin {
		return orderPlugin
	}
	return orderOwn
}

// loader reads the kubeconfig that counts. Whoever comes through kubectl means kubectl's.
func (o *options) loader() (clientcmd.ClientConfig, error) { //nolint:ireturn // client-go gives only the interface
	own, user := filepath.Join(o.dir, "kubeconfig"), userKubeconfig(o.Getenv)
	files := []string{own, user}
	if o.Plugin {
		files = []string{user, own}
	}
	if o.dir == "" {
		files = []string{user}
	}
	rules, err := loadingRules(o.Getenv, o.kubeconfig, o.context, files)
	if err != nil {
		return nil, err
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: o.context}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides), nil
}

// KubernetesConfig finds the API server of a context in the kubeconfigs that kubectl reads:
// the named file, $KUBECONFIG, or ~/.kube/config. An empty context is the current one.
func KubernetesConfig(getenv func(string) string, kubeconfig, context string) (*rest.Config, error) {
	rules, err := loadingRules(getenv, kubeconfig, context, []string{userKubeconfig(getenv)})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	return config, nil
}

func userKubeconfig(getenv func(string) string) string {
	if home := getenv("HOME"); home != "" {
		return filepath.Join(home, ".kube", "config")
	}
	return ""
}

// loadingRules chooses the named file, those of the environment, or the first of files
// that exists and has the context, if one is named.
func loadingRules(getenv func(string) string, kubeconfig, context string, files []string) (*clientcmd.ClientConfigLoadingRules, error) {
	rules := &clientcmd.ClientConfigLoadingRules{}
	if kubeconfig != "" {
		rules.ExplicitPath = kubeconfig
		return rules, hasContext(rules, context)
	}
	if env := getenv("KUBECONFIG"); env != "" {
		rules.Precedence = filepath.SplitList(env)
		return rules, hasContext(rules, context)
	}
	var failures []string
	for _, file := range files {
		if file == "" {
			continue
		}
		if _, err := os.Stat(file); err != nil {
			failures = append(failures, file+" does not exist")
			continue
		}
		rules.ExplicitPath = file
		err := hasContext(rules, context)
		if err == nil {
			return rules, nil
		}
		failures = append(failures, err.Error())
	}
	message := fmt.Sprintf("no API server: %s; run `castellan up`, or name a cluster with --kubeconfig, $KUBECONFIG or --dir", strings.Join(failures, ", "))
	if context != "" {
		return nil, &NotFoundError{Message: message}
	}
	return nil, errors.New(message)
}

// hasContext makes sure that a context that was named is there.
func hasContext(rules *clientcmd.ClientConfigLoadingRules, context string) error {
	if context == "" {
		return nil
	}
	config, err := rules.Load()
	if err != nil {
		return fmt.Errorf("read the kubeconfig: %w", err)
	}
	if config.Contexts[context] != nil {
		return nil
	}
	from := rules.ExplicitPath
	if from == "" {
		from = strings.Join(rules.Precedence, string(filepath.ListSeparator))
	}
	names := slices.Sorted(maps.Keys(config.Contexts))
	return &NotFoundError{Message: fmt.Sprintf("%s has no context %q; it has: %s", from, context, strings.Join(names, ", "))}
}

// program is what a user types to run this command.
func (o *options) program() string {
	if o.Plugin {
		return "kubectl castellan"
	}
	return "castellan"
}
