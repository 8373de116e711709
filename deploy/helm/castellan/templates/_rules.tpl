{{- /* Generated: go test ./deploy -update. */}}
{{- define "castellan.rules.namespaced" -}}
- apiGroups:
  - castellan.dev
  resources:
  - kafkaclusters
  verbs:
  - get
  - list
  - watch
  - patch
- apiGroups:
  - castellan.dev
  resources:
  - kafkanodes
  verbs:
  - get
  - list
  - watch
  - create
  - update
  - patch
  - delete
- apiGroups:
  - castellan.dev
  resources:
  - clusterrevisions
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - castellan.dev
  resources:
  - operations
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - castellan.dev
  resources:
  - kafkatopics
  - kafkausers
  verbs:
  - get
  - list
  - watch
  - patch
- apiGroups:
  - castellan.dev
  resources:
  - kafkaclusters/status
  - kafkanodes/status
  - operations/status
  - kafkatopics/status
  - kafkausers/status
  verbs:
  - patch
- apiGroups:
  - ""
  resources:
  - secrets
  verbs:
  - create
  - update
  - delete
- apiGroups:
  - ""
  resources:
  - configmaps
  - persistentvolumeclaims
  - services
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - apps
  resources:
  - statefulsets
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - policy
  resources:
  - poddisruptionbudgets
  verbs:
  - get
  - list
  - watch
  - create
  - patch
  - delete
- apiGroups:
  - ""
  resources:
  - pods
  verbs:
  - get
  - list
  - watch
  - patch
  - delete
- apiGroups:
  - ""
  resources:
  - secrets
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - ""
  resources:
  - events
  verbs:
  - list
- apiGroups:
  - castellan.dev
  resources:
  - kafkanodes/finalizers
  - kafkaclusters/finalizers
  verbs:
  - update
- apiGroups:
  - events.k8s.io
  resources:
  - events
  verbs:
  - create
  - patch
- apiGroups:
  - ""
  resources:
  - events
  verbs:
  - create
  - patch
- apiGroups:
  - rbac.authorization.k8s.io
  resourceNames:
  - castellan-operator-clusters
  resources:
  - rolebindings
  verbs:
  - get
  - patch
{{- end }}
{{- define "castellan.rules.cluster" -}}
- apiGroups:
  - ""
  resources:
  - nodes
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - ""
  resources:
  - persistentvolumes
  verbs:
  - get
  - list
- apiGroups:
  - ""
  resources:
  - namespaces
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - admissionregistration.k8s.io
  resourceNames:
  - castellan-{{ .Release.Namespace }}
  resources:
  - validatingwebhookconfigurations
  verbs:
  - get
  - list
  - watch
  - patch
{{- end }}
{{- define "castellan.rules.own" -}}
- apiGroups:
  - coordination.k8s.io
  resources:
  - leases
  verbs:
  - create
- apiGroups:
  - coordination.k8s.io
  resourceNames:
  - castellan-operator
  resources:
  - leases
  verbs:
  - get
  - update
  - patch
- apiGroups:
  - ""
  resources:
  - secrets
  verbs:
  - create
- apiGroups:
  - ""
  resourceNames:
  - castellan-webhook
  resources:
  - secrets
  verbs:
  - get
  - list
  - watch
  - update
- apiGroups:
  - events.k8s.io
  resources:
  - events
  verbs:
  - create
  - patch
- apiGroups:
  - ""
  resources:
  - events
  verbs:
  - create
  - patch
{{- end }}
