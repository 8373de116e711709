/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.util.Map;
import java.util.Set;

import org.apache.kafka.common.Configurable;
import org.apache.kafka.common.security.auth.AuthenticationContext;
import org.apache.kafka.common.security.auth.KafkaPrincipal;
import org.apache.kafka.common.security.auth.KafkaPrincipalBuilder;
import org.apache.kafka.common.security.auth.KafkaPrincipalSerde;
import org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder;
import org.apache.kafka.common.security.ssl.SslPrincipalMapper;

/**
 * Kafka's own principals for the clients of a listener, but that none of them is one of Castellan's super users.
 *
 * <p>Whoever names users (an OpenID provider, whoever writes SCRAM credentials, a CA of clients) could call one like the
 * nodes or the operator, who may do everything. Here such a client becomes Outsider:&lt;name&gt;, a type of principal that
 * no super user has and that an ACL has to name on purpose.
 */
public final class ClientPrincipalBuilder implements KafkaPrincipalBuilder, KafkaPrincipalSerde, Configurable {
    /** Those of the layout's super.users. */
    private static final Set<String> OURS = Set.of("castellan-node", "castellan-operator");
    private static final String OUTSIDER = "Outsider";
    private static final String RULES = "ssl.principal.mapping.rules";

    private DefaultKafkaPrincipalBuilder kafka;

    @Override
    public void configure(Map<String, ?> configs) {
        Object rules = configs.get(RULES);
        kafka = new DefaultKafkaPrincipalBuilder(null, SslPrincipalMapper.fromRules(rules == null ? "DEFAULT" : rules.toString()));
    }

    @Override
    public KafkaPrincipal build(AuthenticationContext context) {
        KafkaPrincipal principal = kafka.build(context);
        if (!OURS.contains(principal.getName())) {
            return principal;
        }
        return new KafkaPrincipal(OUTSIDER, principal.getName(), principal.tokenAuthenticated());
    }

    @Override
    public byte[] serialize(KafkaPrincipal principal) {
        return kafka.serialize(principal);
    }

    @Override
    public KafkaPrincipal deserialize(byte[] bytes) {
        return kafka.deserialize(bytes);
    }
}
