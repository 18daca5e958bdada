import { appendFile, readFile } from "node:fs/promises";
import type { BaseNode, VectorStoreQuery } from "llamaindex";
import type { Framework } from "./framework.js";

interface Line {
  readonly text: string;
  readonly metadata: Record<string, unknown>;
  readonly embedding: readonly number[];
}

/** A vector store that outlives its process, for a `vectorBlock`: LlamaIndex's own `SimpleVectorStore` keeps no texts. */
export function fileVectorStore({ llamaindex }: Framework, path: string) {
  const { BaseEmbedding, BaseVectorStore, TextNode } = llamaindex;

  /** How often each letter occurs. */
  class Letters extends BaseEmbedding {
    // biome-ignore lint/complexity/noUselessConstructor: the inherited one is protected
    constructor() {
      super();
    }

    async getTextEmbedding(text: string) {
      return [..."abcdefghijklmnopqrstuvwxyz0123456789"].map(
        (letter) => text.toLowerCase().split(letter).length - 1,
      );
    }
  }

  class FileVectorStore extends BaseVectorStore<string> {
    readonly storesText = true;

    constructor() {
      super({ embeddingModel: new Letters() });
    }

    client() {
      return path;
    }

    async add(nodes: BaseNode[]) {
      const lines = nodes.map((node) => ({
        text: node.getContent(llamaindex.MetadataMode.NONE),
        metadata: node.metadata,
        embedding: node.getEmbedding(),
      }));
      await appendFile(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
      return nodes.map(({ id_ }) => id_);
    }

    async delete() {
      throw new Error("What was said is not deleted here");
    }

    async query({ queryEmbedding = [], similarityTopK, filters }: VectorStoreQuery) {
      const wanted = filters?.filters ?? [];
      const similarity = ({ embedding }: Line) =>
        embedding.reduce((sum, value, index) => sum + value * (queryEmbedding[index] ?? 0), 0);
      const lines = (await readFile(path, { encoding: "utf8", flag: "a+" }))
        .split("\n")
        .filter(Boolean)
        .map((line) => JSON.parse(line) as Line)
        .filter(({ metadata }) => wanted.every(({ key, value }) => metadata[key] === value))
        .sort((a, b) => similarity(b) - similarity(a))
        .slice(0, similarityTopK);
      const nodes = lines.map(({ text, metadata }) => new TextNode({ text, metadata }));
      return { nodes, similarities: lines.map(similarity), ids: nodes.map(({ id_ }) => id_) };
    }
  }
  return new FileVectorStore();
}
