import { join } from "node:path";
import type { NextConfig } from "next";

const config: NextConfig = {
  // Native code, which no bundler packs.
  serverExternalPackages: ["better-sqlite3", "@chatstore/sqlite"],
  turbopack: { root: join(import.meta.dirname, "../..") }, // only within this repository
  devIndicators: false,
};
export default config;
