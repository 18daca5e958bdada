import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import {
  Document,
  MarkdownNodeParser,
  Settings,
  SimpleDocumentStore,
  SimpleIndexStore,
  SimpleVectorStore,
  storageContextFromDefaults,
  VectorStoreIndex,
} from "llamaindex";
import { BagOfWords } from "./embedding.js";

const documentsFolder = new URL("../documents/", import.meta.url);

Settings.embedModel = new BagOfWords();

/** A file of the index is missing or wrong. The message says which one, and how to build it again. */
export class IndexError extends Error {
  override readonly name = "IndexError";

  constructor(path: string, reason: string, options?: ErrorOptions) {
    const command = "npx -y pnpm@10.34.9 --filter @chatstore/demo run index";
    super(`${path} ${reason}. Build the index again with: ${command}`, options);
  }
}

/**
 * Where the index is: a folder named after the documents, so that changed documents get an index of their own instead of
 * answers from the old one.
 */
export async function indexFolder(dataFolder: string): Promise<string> {
  const hash = createHash("sha256");
  for (const document of await readDocuments()) hash.update(document.hash);
  return join(dataFolder, `index-${hash.digest("hex").slice(0, 12)}`);
}

/**
 * Load the index from its `persistDir`; the first run builds it.
 *
 * @throws IndexError when the folder is there but a file in it is missing, damaged, or of other nodes than the others.
 */
export async function loadIndex(persistDir: string): Promise<VectorStoreIndex> {
  if (!existsSync(persistDir)) await buildIndex(persistDir);
  await checkFiles(persistDir);
  return VectorStoreIndex.init({
    storageContext: await storageContextFromDefaults({ persistDir }),
  });
}

/** Build the index in place of the one that is there. */
export async function rebuildIndex(persistDir: string): Promise<void> {
  await rm(persistDir, { recursive: true, force: true });
  await buildIndex(persistDir);
}

/** Build the index aside, then move it into place: no other process ever sees half of one. */
async function buildIndex(persistDir: string): Promise<void> {
  const docStore = new SimpleDocumentStore();
  const indexStore = new SimpleIndexStore();
  const vectorStore = new SimpleVectorStore();
  await VectorStoreIndex.init({
    nodes: new MarkdownNodeParser().getNodesFromDocuments(await readDocuments()),
    storageContext: await storageContextFromDefaults({ docStore, indexStore, vectorStore }),
  });

  const aside = `${persistDir}.${randomUUID()}`;
  await mkdir(aside, { recursive: true });
  const stores = {
    "doc_store.json": docStore,
    "index_store.json": indexStore,
    "vector_store.json": vectorStore,
  };
  for (const [name, store] of Object.entries(stores)) {
    // Not by `persist()`: an index store's resolves before its file is written.
    await writeFile(join(aside, name), JSON.stringify(store.toDict()));
  }
  try {
    await rename(aside, persistDir);
  } catch (error) {
    // Another process that started at the same time was faster: its index is as good.
    if (!existsSync(persistDir)) throw error;
    await rm(aside, { recursive: true });
  }
}

async function readDocuments(): Promise<Document[]> {
  const names = (await readdir(documentsFolder)).filter((name) => name.endsWith(".md")).sort();
  return Promise.all(
    names.map(async (source) => {
      const text = await readFile(new URL(source, documentsFolder), "utf8");
      return new Document({ id_: source, text, metadata: { source } });
    }),
  );
}

/** The ids of the nodes that each file holds. */
// biome-ignore lint/suspicious/noExplicitAny: whatever JSON is there; what does not fit, throws
const nodeIdsOf: Readonly<Record<string, (json: any) => string[]>> = {
  "doc_store.json": (json) => Object.keys(json["docstore/data"]),
  "index_store.json": (json) =>
    Object.values<{ nodesDict: object }>(json["docstore/data"]).flatMap(({ nodesDict }) =>
      Object.keys(nodesDict),
    ),
  "vector_store.json": (json) => Object.keys(json.embeddingDict),
};

/** LlamaIndex loads a missing or empty document or vector store in silence, and then finds nothing. */
async function checkFiles(persistDir: string): Promise<void> {
  let expected: { path: string; ids: Set<string> } | undefined;
  for (const [name, nodeIds] of Object.entries(nodeIdsOf)) {
    const path = join(persistDir, name);
    const ids = new Set(await readIds(path, nodeIds));
    if (ids.size === 0) throw new IndexError(path, "holds no nodes");
    expected ??= { path, ids };
    if (ids.size !== expected.ids.size || [...ids].some((id) => !expected?.ids.has(id))) {
      throw new IndexError(path, `holds other nodes than ${expected.path}`);
    }
  }
}

async function readIds(path: string, nodeIds: (json: unknown) => string[]): Promise<string[]> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (cause) {
    throw new IndexError(path, "cannot be read", { cause });
  }
  try {
    return nodeIds(JSON.parse(text));
  } catch (cause) {
    throw new IndexError(path, "is damaged", { cause });
  }
}
