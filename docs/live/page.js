/**
 * The page: takes photos, videos and the webcam, asks the worker for the faces, draws them, and keeps the table.
 *
 * @typedef {import("./geaau.js").Face & {track: number | null, probabilities: number[], intensities: number[]}} TrackedFace
 * @typedef {{name: string, frame: number, time: number | null, faces: TrackedFace[]}} Frame
 */

const SEARCH_MS = 1000; // new faces are looked for so often; known ones in every frame; our choice
const SAME_FACE = 0.3; // of frames that follow each other, boxes of this intersection over union are one person's; our choice
const LOST_MS = 1000; // so long a face keeps its number while it is not seen; our choice
const CAMERA_SPAN_S = 30; // what the timeline of the webcam shows
const TIMELINE_MS = 400; // the timeline is drawn so often, as drawing a long one takes longer than a frame
const MAX_SIDE = 4096; // larger photos are shrunk, to spare memory
const SLOWEST = 0.1; // of a video's playback, which slows down where the machine cannot follow; browsers take no less

const at = (id) => document.getElementById(id);
const stage = /** @type {HTMLCanvasElement} */ (at("stage"));
const timeline = /** @type {HTMLCanvasElement} */ (at("timeline"));
const grabbed = document.createElement("canvas");

/** @type {any} */
let facts = null;
/** @type {Frame[]} What the CSV file holds. */
let frames = [];
/** @type {number | null} The track, or the number of the face in a photo, whose action units are listed. */
let chosen = null;
/** @type {number | null} Duration of the video in seconds; null for the webcam. */
let duration = null;
let lastDrawn = -Infinity;
/** @type {() => void} Stops what runs now. */
let stop = () => {};

// ------------------------------------------------------------------------------------------------------- the worker

const waiting = new Map();
let lastId = 0;
/** @type {Worker} */
let worker;

/** Ask the worker; see `ActionUnitDetector.detect`. @param {ImageData} image @returns {Promise<{faces: any[], ms: any}>} */
function detect(image, near = [], isSearch = true) {
  const id = ++lastId;
  const { width, height, data } = image;
  worker.postMessage({ id, image: { width, height, data }, near, isSearch }, [data.buffer]);
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

function listen({ data: message }) {
  if (message.kind === "progress") {
    /** @type {HTMLProgressElement} */ (at("progress")).value = message.loaded / message.total;
    at("bytes").textContent = `${megabytes(message.loaded)} of ${megabytes(message.total)} MB`;
  } else if (message.kind === "ready") {
    facts = message.facts;
    at("loading").hidden = true;
    at("engine").textContent = `The network runs on ${message.provider === "WebGPU" ? "the GPU (WebGPU)" : "the CPU (WebAssembly)"}.${offlineNote()}`;
    at("version").textContent = `· hf_geaau ${facts.version}, ${facts.model}`;
    /** @type {HTMLButtonElement} */ (at("camera")).disabled = false;
    listUnits();
    say("Ready. Choose a photo or a video, drop one on the picture, or start the webcam.");
    resolveReady();
  } else if (message.kind === "failed") {
    at("loading").hidden = true;
    say(`Cannot load the networks: ${message.message}. Check the connection and load the page again.`, true);
  } else {
    const { resolve, reject } = waiting.get(message.id);
    waiting.delete(message.id);
    message.kind === "error" ? reject(new Error(message.message)) : resolve(message);
  }
}

let resolveReady;
const ready = new Promise((resolve) => (resolveReady = resolve));
const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
const offlineNote = () => (navigator.serviceWorker?.controller ? " This page now works offline, too." : "");

/** Start the worker; with a service worker in control, so that it keeps what the worker loads. */
async function start() {
  try {
    await navigator.serviceWorker.register("service_worker.js");
    if (!navigator.serviceWorker.controller) {
      const control = new Promise((resolve) => navigator.serviceWorker.addEventListener("controllerchange", resolve, { once: true }));
      await Promise.race([control, new Promise((resolve) => setTimeout(resolve, 5000))]);
    }
  } catch {
    // Without a service worker, as in private windows, the page works, but not offline.
  }
  worker = new Worker("worker.js", { type: "module" });
  worker.onmessage = listen;
  worker.onerror = () => listen({ data: { kind: "failed", message: "this browser does not run it" } });
}

// ------------------------------------------------------------------------------------------------- photos and videos

/** @param {string} text @param {boolean} [isProblem] */
function say(text, isProblem = false) {
  at("status").textContent = text;
  at("status").classList.toggle("problem", isProblem);
}

/** Begin with a new source: end what runs, and forget its rows. */
function begin(isVideo) {
  stop();
  stop = () => {};
  frames = [];
  chosen = null;
  at("history").hidden = !isVideo;
}

/** @param {File} file */
async function open(file) {
  begin(false);
  say(facts ? `Reading ${file.name} …` : `${file.name} will be analyzed once the networks are loaded …`);
  await ready;
  if (file.type.startsWith("video/")) return openVideo(file);
  let photo;
  try {
    photo = await createImageBitmap(file);
  } catch {
    const kind = file.type && !file.type.startsWith("image/") ? `it is no picture (${file.type})` : "this browser cannot decode it";
    return say(`Cannot read '${file.name}' as a photo: ${kind}. Choose a JPEG, PNG or WebP photo, or an MP4 or WebM video.`, true);
  }
  say("Looking for faces …");
  const { faces } = await detect(grab(photo, photo.width, photo.height, MAX_SIDE));
  show({ name: file.name, frame: 0, time: null, faces: faces.map((face) => ({ ...face, track: null })) });
  photo.close();
  say(faces.length ? summary(faces) : "No face was found. Faces must be larger than some 20 pixels, and not in profile.", !faces.length);
}

/** Draw a picture, at most `longest` pixels long, and return its pixels. @returns {ImageData} */
function grab(source, width, height, longest = Infinity) {
  const scale = Math.min(1, longest / Math.max(width, height));
  grabbed.width = Math.max(1, Math.round(width * scale));
  grabbed.height = Math.max(1, Math.round(height * scale));
  const context = grabbed.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // below transparent parts, as by the Python package
  context.fillRect(0, 0, grabbed.width, grabbed.height);
  context.drawImage(source, 0, 0, grabbed.width, grabbed.height);
  return context.getImageData(0, 0, grabbed.width, grabbed.height);
}

/** @param {File} file */
async function openVideo(file) {
  const video = document.createElement("video");
  video.src = URL.createObjectURL(file);
  const isPlayable = await new Promise((resolve) => {
    video.onloadeddata = () => resolve(true);
    video.onerror = () => resolve(false);
  });
  if (!isPlayable) {
    URL.revokeObjectURL(video.src);
    return say(`Cannot read '${file.name}' as a video: this browser cannot decode it. Convert it to MP4 (H.264) or WebM.`, true);
  }
  begin(true);
  await follow(video, file.name);
  URL.revokeObjectURL(video.src);
}

async function openCamera() {
  begin(true);
  say("Waiting for the camera …");
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
    const video = document.createElement("video");
    video.srcObject = stream;
    at("camera").textContent = "Stop webcam";
    await follow(video, "webcam");
    for (const track of stream.getTracks()) track.stop();
  } catch (error) {
    const reasons = { NotAllowedError: "permission was refused. Allow it in the browser's settings for this page", NotFoundError: "no camera was found. Connect one" };
    say(`Cannot use the camera: ${reasons[error.name] ?? error.message}, and press 'Start webcam' again.`, true);
  }
  at("camera").textContent = "Start webcam";
}

/** Analyze a video while it plays, until it ends or is stopped. @param {HTMLVideoElement} video @param {string} name */
async function follow(video, name) {
  const isCamera = Boolean(video.srcObject), tracker = new Tracker();
  let newest = null, wake = () => {}, isOver = false;
  const end = () => {
    isOver = true;
    wake();
  };
  const note = (_, metadata) => {
    newest = metadata;
    wake();
    video.requestVideoFrameCallback(note);
  };
  stop = end;
  duration = isCamera ? null : video.duration;
  video.onended = end;
  video.muted = video.playsInline = true;
  video.requestVideoFrameCallback(note);
  await video.play();
  const begun = performance.now(), sums = { grab: 0, find: 0, crop: 0, network: 0, show: 0 };
  let count = 0, searched = -Infinity, first = null, shown = 0;
  while (!isOver) {
    if (!newest) {
      await new Promise((resolve) => (wake = resolve));
      continue;
    }
    const { mediaTime, presentedFrames } = newest, now = performance.now();
    newest = null;
    first ??= { frame: presentedFrames, time: isCamera ? mediaTime : 0 };
    const isSearch = now - searched > SEARCH_MS;
    if (isSearch) searched = now;
    const image = grab(video, video.videoWidth, video.videoHeight), sent = performance.now();
    const result = await detect(image, tracker.faces, isSearch), answered = performance.now();
    const faces = tracker.update(result.faces, 1000 * mediaTime);
    count++;
    show({ name, frame: presentedFrames - first.frame, time: mediaTime - first.time, faces });
    const ms = { ...result.ms, grab: sent - now, show: performance.now() - answered };
    for (const part of Object.keys(sums)) sums[part] += ms[part];
    const seen = presentedFrames - first.frame + 1, rate = (1000 * count) / (performance.now() - begun);
    if (!isCamera && isSearch) video.playbackRate = Math.min(1, Math.max(SLOWEST, (video.playbackRate * (frames.length - shown + 1)) / (seen - (first.seen ?? 0))));
    if (isSearch) {
      [shown, first.seen] = [frames.length, seen];
      const people = faces.length === 1 ? "1 face" : `${faces.length || "No"} faces`;
      say(`${people} · ${rate.toFixed(0)} frames/s${isCamera ? "" : ` · ${count} of ${seen} frames analyzed`}`);
    }
    stage.dataset.speed = JSON.stringify({ frames: count, seen, ms: performance.now() - begun, ...sums });
  }
  video.pause();
  if (frames.length) drawTimeline();
  say(`${isCamera ? "The webcam is off" : "The video has ended"}: ${count} frames were analyzed. The table can be downloaded.`);
}

/** Numbers people: faces of frames that follow each other are one person's where their boxes overlap. */
class Tracker {
  /** @type {TrackedFace[]} Those of the last frame. */
  faces = [];
  #known = /** @type {{face: TrackedFace, seen: number}[]} */ ([]);
  #next = 1;
  /** Time of the frame before: on a slow machine that is long ago. */
  #before = -Infinity;

  /** @param {any[]} faces @param {number} now Time of the frame in ms. @returns {TrackedFace[]} */
  update(faces, now) {
    const known = this.#known.filter(({ seen }) => seen === this.#before || now - seen < LOST_MS);
    this.#before = now;
    this.faces = faces.map((face) => {
      const overlaps = known.map((other) => boxOverlap(face.box, other.face.box)), best = Math.max(...overlaps);
      const track = best > SAME_FACE ? known.splice(overlaps.indexOf(best), 1)[0].face.track : this.#next++;
      return { ...face, track };
    });
    this.#known = [...known, ...this.faces.map((face) => ({ face, seen: now }))];
    return this.faces;
  }
}

function boxOverlap([left, top, right, bottom], [other, above, end, below]) {
  const shared = Math.max(0, Math.min(right, end) - Math.max(left, other)) * Math.max(0, Math.min(bottom, below) - Math.max(top, above));
  return shared / ((right - left) * (bottom - top) + (end - other) * (below - above) - shared);
}

// ---------------------------------------------------------------------------------------------------------- showing

const isPresent = (face, index) => face.probabilities[index] >= facts.thresholds[index];
const keyOf = (face, index) => face.track ?? index + 1;

/** @param {any[]} faces */
function summary(faces) {
  const present = facts.action_units.filter((_, index) => isPresent(faces[0], index)).map(({ label, name }) => `${label} ${name.toLowerCase()}`);
  const people = faces.length === 1 ? "1 face." : `${faces.length} faces. The largest:`;
  const quality = faces[0].quality.length ? ` It is ${faces[0].quality.join(" and ")}, so the values are unreliable.` : "";
  return `${people} Present: ${present.join(", ") || "no action unit"}.${quality}`;
}

/** Add a frame to the table, and show it. @param {Frame} frame */
function show(frame) {
  frames.push(frame);
  /** @type {HTMLButtonElement} */ (at("download")).disabled = false;
  const keys = frame.faces.map(keyOf);
  if (!keys.includes(chosen) && keys.length) chosen = keys[0];
  listPeople(keys);
  draw(frame);
  listValues(frame.faces[keys.indexOf(chosen)]);
  if (frame.time !== null && performance.now() - lastDrawn > TIMELINE_MS) drawTimeline();
}

/** Draw the picture that was grabbed last, and boxes with numbers on it. @param {Frame} frame */
function draw(frame) {
  if (stage.width !== grabbed.width || stage.height !== grabbed.height) Object.assign(stage, { width: grabbed.width, height: grabbed.height });
  const context = stage.getContext("2d"), unit = Math.max(stage.width, stage.height) / 640;
  context.drawImage(grabbed, 0, 0);
  context.font = `${Math.round(16 * unit)}px system-ui, sans-serif`;
  frame.faces.forEach((face, index) => {
    const [left, top, right, bottom] = face.box, isChosen = keyOf(face, index) === chosen;
    for (const [color, width] of [["#000000", 5], ["#ffffff", 2.5]]) {
      Object.assign(context, { strokeStyle: color, lineWidth: width * unit });
      context.setLineDash(isChosen ? [] : [8 * unit, 6 * unit]);
      context.strokeRect(left, top, right - left, bottom - top);
    }
    context.fillStyle = "#000000";
    context.fillRect(left, top, 26 * unit, 22 * unit);
    context.fillStyle = "#ffffff";
    context.fillText(String(keyOf(face, index)), left + 5 * unit, top + 17 * unit);
  });
  const count = frame.faces.length;
  stage.setAttribute("aria-label", `${frame.name}: ${count === 1 ? "1 face" : `${count || "no"} faces`} marked`);
}

/** Offer the faces to choose from, if there are several. @param {number[]} keys */
function listPeople(keys) {
  const people = at("people");
  people.hidden = keys.length < 2;
  if (people.dataset.keys === keys.join()) return;
  people.dataset.keys = keys.join();
  for (const label of people.querySelectorAll("label")) label.remove();
  for (const key of [...keys].sort((one, other) => one - other)) {
    const label = document.createElement("label"), input = document.createElement("input");
    Object.assign(input, { type: "radio", name: "person", value: key, checked: key === chosen });
    input.onchange = () => {
      chosen = key;
      const frame = frames.at(-1);
      draw(frame);
      listValues(frame.faces.find((face, index) => keyOf(face, index) === key));
      if (frame.time !== null) drawTimeline();
    };
    label.append(input, ` ${key}`);
    people.append(label);
  }
}

/** Make the rows of the table of action units. */
function listUnits() {
  at("units").replaceChildren(
    ...facts.action_units.map(({ label, name }, index) => {
      const row = document.createElement("tr");
      row.id = label;
      row.innerHTML = `<th scope="row"><b>${label}</b> ${name}</th><td><span class="bar" aria-hidden="true"><span class="fill"></span><span class="mark"></span></span><span class="value">–</span></td><td class="intensity">–</td><td class="is-present"></td>`;
      const mark = /** @type {HTMLElement} */ (row.querySelector(".mark"));
      mark.style.left = `${100 * facts.thresholds[index]}%`;
      mark.title = `Threshold ${facts.thresholds[index]}`;
      return row;
    }),
  );
}

/** @param {TrackedFace | undefined} face */
function listValues(face) {
  facts.action_units.forEach(({ label }, index) => {
    const row = at(label), present = face !== undefined && isPresent(face, index);
    row.classList.toggle("present", present);
    /** @type {HTMLElement} */ (row.querySelector(".fill")).style.width = `${face ? 100 * face.probabilities[index] : 0}%`;
    row.querySelector(".value").textContent = face ? face.probabilities[index].toFixed(2) : "–";
    row.querySelector(".intensity").textContent = face ? face.intensities[index].toFixed(1) : "–";
    row.querySelector(".is-present").innerHTML = present ? "✓<span> yes</span>" : "";
  });
}

/** Draw the chosen person's action units over time, one row each. */
function drawTimeline() {
  lastDrawn = performance.now();
  const style = getComputedStyle(document.documentElement), color = (name) => style.getPropertyValue(`--${name}`);
  const unit = devicePixelRatio, margin = 50 * unit, height = 16 * unit, bottom = facts.action_units.length * height;
  const width = Math.round(timeline.clientWidth * unit);
  Object.assign(timeline, { width, height: bottom + height }); // clears it, too
  const context = timeline.getContext("2d");
  const last = frames.at(-1).time, start = duration === null ? Math.max(0, last - CAMERA_SPAN_S) : 0;
  const xOf = (time) => Math.round(margin + ((time - start) * (width - margin)) / (duration ?? CAMERA_SPAN_S));
  context.font = `${12 * unit}px system-ui, sans-serif`;
  facts.action_units.forEach(({ label }, index) => {
    context.fillStyle = color("ink");
    context.fillText(label, 0, (index + 0.8) * height);
    context.fillStyle = color("field");
    context.fillRect(margin, index * height + unit, width - margin, height - 2 * unit);
  });
  context.fillStyle = color("soft");
  const step = [1, 2, 5, 10, 30, 60, 300, 600].find((seconds) => xOf(start + seconds) - margin > 60 * unit) ?? 3600;
  for (let time = Math.ceil(start / step) * step; xOf(time) < width - 30 * unit; time += step) {
    context.fillText(`${time} s`, xOf(time), bottom + 0.85 * height);
  }
  context.fillStyle = color("strong");
  let before = null;
  for (const { time, faces } of frames) {
    if (before !== null && time >= start && xOf(time) === xOf(before)) continue; // no more than one frame a pixel
    const face = time < start ? null : faces.find(({ track }) => track === chosen);
    if (face && before !== null) {
      const left = xOf(before), across = xOf(time) - left;
      face.probabilities.forEach((probability, index) => {
        context.globalAlpha = probability;
        context.fillRect(left, index * height + unit, across, height - 5 * unit);
        context.globalAlpha = 1;
        if (isPresent(face, index)) context.fillRect(left, (index + 1) * height - 4 * unit, across, 3 * unit);
      });
    }
    before = time < start ? null : time;
  }
}

// ------------------------------------------------------------------------------------------------------------- table

/** @returns {string} The faces of all frames, with the columns that the Python package writes. */
function csv() {
  const [, points, pose] = facts.face_columns, lines = [facts.columns.join()];
  for (const { name, frame, time, faces } of frames) {
    faces.forEach((face, index) => {
      const [xmin, ymin, xmax, ymax] = face.box;
      const values = { source: name, frame, time_s: time ?? "", track_id: face.track ?? "", face: index, score: face.score, xmin, ymin, xmax, ymax };
      points.forEach((column, place) => (values[column] = face.points.flat()[place]));
      pose.forEach((column, place) => (values[column] = face.pose[place]));
      values.quality = face.quality.join("; ") || "good";
      facts.action_units.forEach(({ label }, unit) => {
        values[label] = face.probabilities[unit];
        values[`${label}_present`] = Number(isPresent(face, unit));
        values[`${label}_intensity`] = face.intensities[unit];
      });
      lines.push(facts.columns.map((column) => cell(values[column])).join());
    });
  }
  return `${lines.join("\n")}\n`;
}

function cell(value) {
  if (typeof value === "number") return String(Number(value.toPrecision(7)));
  return /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = `${(frames[0]?.name ?? "faces").replace(/\.\w+$/, "")}_aus.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// --------------------------------------------------------------------------------------------------------- listening

const report = (promise) => promise.catch((error) => say(`Cannot go on: ${error.message}. Load the page again.`, true));
const input = /** @type {HTMLInputElement} */ (at("file"));
input.onchange = () => {
  if (input.files.length) report(open(input.files[0]));
  input.value = ""; // so that the same file can be chosen again
};
at("camera").onclick = () => (at("camera").textContent === "Stop webcam" ? stop() : report(openCamera()));
at("download").onclick = download;
stage.ondragover = (event) => {
  event.preventDefault();
  stage.classList.add("target");
};
stage.ondragleave = () => stage.classList.remove("target");
stage.ondrop = (event) => {
  event.preventDefault();
  stage.classList.remove("target");
  if (event.dataTransfer.files.length) report(open(event.dataTransfer.files[0]));
};
report(start());
