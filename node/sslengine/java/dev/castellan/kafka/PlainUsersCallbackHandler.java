/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.io.IOException;
import java.io.StringReader;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.List;
import java.util.Map;
import java.util.Properties;

import javax.security.auth.callback.Callback;
import javax.security.auth.callback.NameCallback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;

import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.plain.PlainAuthenticateCallback;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Checks users of SASL/PLAIN against a file of theirs (.properties: user=password), as it is at that moment: Kafka's own
 * handler knows only those of its configuration, where a change is a restart and passwords do not belong.
 *
 * <p>The option castellan_users of the listener's JAAS entry is the file's path. While the file cannot be read, those it
 * last held are in force, and the log says so once.
 */
public final class PlainUsersCallbackHandler implements AuthenticateCallbackHandler {
    private static final Logger LOG = LoggerFactory.getLogger(PlainUsersCallbackHandler.class);
    private static final String FILE = "castellan_users";

    private PemFile file;
    private PemFile.Content read;
    private Properties users;
    private boolean complained;

    @Override
    public synchronized void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
        Object path = entries.stream().map(e -> e.getOptions().get(FILE)).filter(p -> p != null).findFirst().orElse(null);
        if (path == null) {
            throw new ConfigException("sasl.jaas.config has no option " + FILE);
        }
        file = new PemFile(path.toString());
        try {
            load();
        } catch (IOException | IllegalArgumentException e) {
            throw new KafkaException("read the users of SASL/PLAIN in " + file, e);
        }
    }

    @Override
    public void handle(Callback[] callbacks) throws UnsupportedCallbackException {
        String name = null;
        for (Callback callback : callbacks) {
            if (callback instanceof NameCallback) {
                name = ((NameCallback) callback).getDefaultName();
            } else if (callback instanceof PlainAuthenticateCallback) {
                PlainAuthenticateCallback plain = (PlainAuthenticateCallback) callback;
                plain.authenticated(authentic(name, plain.password()));
            } else {
                throw new UnsupportedCallbackException(callback);
            }
        }
    }

    private boolean authentic(String name, char[] password) {
        String expected = name == null ? null : current().getProperty(name);
        if (expected == null || password == null) {
            return false;
        }
        // Takes the same time wherever they differ.
        return MessageDigest.isEqual(expected.getBytes(StandardCharsets.UTF_8), new String(password).getBytes(StandardCharsets.UTF_8));
    }

    private synchronized Properties current() {
        if (!PemFile.untouched(file, read)) {
            try {
                load();
                complained = false;
            } catch (IOException | IllegalArgumentException e) {
                if (!complained) {
                    LOG.error("Users of SASL/PLAIN changed but cannot be read: {}: {}. The last ones stay in force", file, e.toString());
                }
                complained = true;
            }
        }
        return users;
    }

    private void load() throws IOException {
        PemFile.Content content = PemFile.read(file);
        Properties found = new Properties();
        found.load(new StringReader(content.text().value()));
        read = content;
        users = found;
    }

    @Override
    public void close() {
    }
}
