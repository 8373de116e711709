/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Base64;
import java.util.Objects;

import org.apache.kafka.common.config.types.Password;

/** One watched file: tells cheaply whether it is still what was read. Every method takes null as "no file configured". */
final class PemFile {
    /**
     * How old a modification time must be when its file is read before the time alone is trusted. File systems stamp with
     * the kernel's tick or worse, so a second write right after a read may leave time, size and inode as they were.
     */
    private static final long SETTLED_MS = 2000;

    private final Path path;

    PemFile(String location) {
        this.path = Paths.get(location);
    }

    /** The bytes of one read, with the file's stamp taken before it. */
    static final class Content {
        private final byte[] bytes;
        private final String digest;
        private final BasicFileAttributes stamp;
        private final boolean settled;

        Content(byte[] bytes, BasicFileAttributes stamp, boolean settled) {
            this.bytes = bytes;
            this.digest = sha256(bytes);
            this.stamp = stamp;
            this.settled = settled;
        }

        Password text() {
            return new Password(new String(bytes, StandardCharsets.UTF_8));
        }
    }

    static Content read(PemFile file) throws IOException {
        if (file == null) {
            return null;
        }
        BasicFileAttributes stamp = stat(file.path);
        boolean settled = System.currentTimeMillis() - stamp.lastModifiedTime().toMillis() > SETTLED_MS;
        return new Content(Files.readAllBytes(file.path), stamp, settled);
    }

    /** True only if the file surely is what was read; false may also mean "look closer". */
    static boolean untouched(PemFile file, Content last) {
        if (file == null) {
            return true;
        }
        if (!last.settled) {
            return false;
        }
        try {
            BasicFileAttributes now = stat(file.path);
            FileTime before = last.stamp.lastModifiedTime();
            return before.equals(now.lastModifiedTime())
                && last.stamp.size() == now.size()
                && Objects.equals(last.stamp.fileKey(), now.fileKey());
        } catch (IOException e) {
            return false;
        }
    }

    static boolean sameBytes(Content a, Content b) {
        return digest(a).equals(digest(b));
    }

    static String digest(Content content) {
        return content == null ? "" : content.digest;
    }

    @Override
    public String toString() {
        return path.toString();
    }

    private static BasicFileAttributes stat(Path path) throws IOException {
        return Files.readAttributes(path, BasicFileAttributes.class);
    }

    private static String sha256(byte[] bytes) {
        try {
            return Base64.getEncoder().encodeToString(MessageDigest.getInstance("SHA-256").digest(bytes));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }
}
