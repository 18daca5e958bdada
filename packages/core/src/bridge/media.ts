/** Images, sounds and files in a message, from the forms that frameworks have for them. */
import type { MessageContentPart } from "../messages.js";

type Fields = { readonly [name: string]: unknown };

const kinds = /^(?:input_|output_)?(image|audio|video|file|document|media)(?:_url)?$/;

/**
 * A part with media in it as a canonical one. What is kept elsewhere, and is no image with an address, is named in a text.
 * `undefined` for what is no media.
 */
export function mediaPart(part: Fields): MessageContentPart | undefined {
  const { type } = part;
  const [, named] = kinds.exec(String(type)) ?? [];
  // Gemini's have no type.
  const nested = [part["inlineData"], part["fileData"]].find(isObject);
  if (named === undefined && (type !== undefined || nested === undefined)) return undefined;
  const inner = nested ?? holders.map((name) => part[name]).find(isObject) ?? {};
  const fields: Fields = { ...part, ...inner };
  const kind = named === "document" || named === undefined ? "file" : named;
  if (inner["type"] === "text" && typeof inner["data"] === "string") {
    return { type: "text", text: inner["data"] }; // a plain document of Anthropic's
  }
  const [given] = addresses.map((name) => fields[name]).filter((one) => typeof one === "string");
  const mimeType = mimeTypes.map((name) => fields[name]).find((one) => typeof one === "string");
  if (typeof given !== "string") {
    const { transcript } = fields;
    const text = typeof transcript === "string" ? transcript : describe(kind, part);
    return { type: "text", text };
  }
  const url = /^data:([^;,]*)(?:;[^,]*)?,(.*)$/s.exec(given);
  const format = typeof fields["format"] === "string" ? `audio/${fields["format"]}` : undefined;
  const mime = String(mimeType ?? format ?? (url?.[1] || defaults[kind] || octets));
  const isImage = kind === "image" || mime.startsWith("image/");
  if (/^https?:/.test(given)) {
    return isImage
      ? { type: "image_url", image_url: { url: given } }
      : { type: "text", text: describe(kind, part) };
  }
  if (url !== null && isImage) return { type: "image_url", image_url: { url: given } };
  const kindOfData = /^(image|audio|video)\//.exec(mime)?.[1] ?? "file";
  return { type: kindOfData as "file", data: url?.[2] ?? given, mimeType: mime };
}

/** The members that hold what a part is about. */
const holders = ["source", "file", "image", "image_url", "input_audio", "audio"] as const;
const addresses = [
  ...["url", "data", "file_data", "file_url", "fileUri"],
  ...["image", "image_url", "file", "audio"],
];
const mimeTypes = ["mimeType", "mime_type", "mediaType", "media_type"];
const octets = "application/octet-stream";
const defaults: Readonly<Record<string, string>> = { image: "image/png", audio: "audio/wav" };

/** What stands for media that are kept elsewhere. */
function describe(kind: string, { type: _, providerData: __, ...part }: Fields): string {
  return `[${kind}: ${JSON.stringify(part)}]`;
}

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
