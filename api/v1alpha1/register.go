package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the group and version of every object in this package.
var GroupVersion = schema.GroupVersion{Group: "castellan.dev", Version: "v1alpha1"}

// AddToScheme makes the objects of this package known to a scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&KafkaCluster{}, &KafkaClusterList{},
		&KafkaNode{}, &KafkaNodeList{},
		&ClusterRevision{}, &ClusterRevisionList{},
		&Operation{}, &OperationList{},
		&Host{}, &HostList{},
		&HostProcess{}, &HostProcessList{},
		&Package{}, &PackageList{},
		&KafkaTopic{}, &KafkaTopicList{},
		&KafkaUser{}, &KafkaUserList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
