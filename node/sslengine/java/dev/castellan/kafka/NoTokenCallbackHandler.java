/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.util.List;
import java.util.Map;

import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;

import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerTokenCallback;

/**
 * Logs a broker in without a token, as it never is a client of OAuth. Kafka's default does so only where the JAAS entry has
 * no options at all (3.9.2, 4.3.1), and the CA of a provider is one.
 */
public final class NoTokenCallbackHandler implements AuthenticateCallbackHandler {
    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
    }

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (!(callback instanceof OAuthBearerTokenCallback)) {
                throw new UnsupportedCallbackException(callback);
            }
            ((OAuthBearerTokenCallback) callback).token(null);
        }
    }

    @Override
    public void close() {
    }
}
