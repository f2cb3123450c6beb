"""GLSL of the renderer: skin with wrinkles, eyes, mouth, hair and spectacles under the same lights.

Each shader goes behind VERTEX or FRAGMENT, which hold what all share.
"""

FRAGMENT = """#version 330
uniform vec3 light_directions[3];
uniform vec3 light_halves[3];  // half-way between light and eye
uniform vec3 light_colors[3];
uniform vec3 ambient[9];  // factors of lighting.harmonics
uniform float exposure;

vec3 sky(vec3 n) {
    vec3 sum = ambient[0] + n.x * ambient[1] + n.y * ambient[2] + n.z * ambient[3];
    sum += n.x * n.y * ambient[4] + n.y * n.z * ambient[5] + n.z * n.x * ambient[6];
    return max(sum + (3.0 * n.z * n.z - 1.0) * ambient[7] + (n.x * n.x - n.y * n.y) * ambient[8], vec3(0.0));
}

// Blinn-Phong: (1 - sharp / 8 (1 - x²)) ^ 4 is close to x ^ sharp and costs no pow.
float lobe(float x, float sharp) {
    float y = max(1.0 - 0.125 * sharp * (1.0 - x * x), 0.0);
    y *= y;
    return y * y * (sharp + 8.0) / 25.0;
}
vec3 highlight(vec3 n, vec3 seen, float sharp) {
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        float lit = step(0.0, dot(n, light_directions[i])) * seen[i];
        sum += light_colors[i] * (lit * lobe(max(dot(n, light_halves[i]), 0.0), sharp));
    }
    return sum;
}
// Diffuse light; `wrap` lets light creep past the edge of shade, differently per colour, as in skin.
vec3 diffuse(vec3 n, vec3 seen, vec3 wrap) {
    vec3 sum = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        vec3 d = max((dot(n, light_directions[i]) + wrap) / (1.0 + wrap), vec3(0.0));
        sum += light_colors[i] * d * (seen[i] + wrap * (seen[i] - seen[i] * seen[i]));
    }
    return sum;
}
vec4 developed(vec3 light) {
    vec3 x = light * exposure;
    return vec4(sqrt(1.0 - exp(-1.35 * x)), 1.0);  // film-like: highlights roll off, none is cut
}
"""

VERTEX = """#version 330
uniform mat4 clip;
uniform mat3 turn;
in vec3 position;
in vec3 normal;
"""

HEAD_VERTEX = """
in vec4 seen; in vec2 uv; in vec2 fold; in float material; in vec2 eye; in float scalp;
out vec3 f_normal; out vec4 f_seen; out vec2 f_uv; out vec2 f_fold; flat out float f_material; out vec2 f_eye;
out float f_scalp; out vec3 f_place;
void main() {
    gl_Position = clip * vec4(position, 1.0);
    f_normal = turn * normal; f_seen = seen; f_uv = uv; f_fold = fold; f_material = material; f_eye = eye;
    f_scalp = scalp; f_place = position;
}
"""

HEAD_FRAGMENT = """
in vec3 f_normal; in vec4 f_seen; in vec2 f_uv; in vec2 f_fold; flat in float f_material; in vec2 f_eye;
in float f_scalp; in vec3 f_place;
out vec4 color;
uniform mat3 turn;
uniform float scanned;  // whether the texture is a photograph, which also shows the mouth
uniform sampler2D skin, wrinkles, strands;
uniform vec3 skin_tone, hair_color, iris_color, sclera_color, teeth_color;
uniform float oil, iris_radius, pupil, lip_depth, lip_gap, buzz, collar;
uniform vec3 cloth_color;
uniform vec2 lids[8];

vec3 shade_skin(vec3 n) {
    bool back = f_material > 0.5;
    vec4 painted = texture(skin, back && scanned < 0.5 ? vec2(0.5, 0.997) : f_uv);
    float height = back ? 0.0 : (texture(wrinkles, f_fold).r - 0.502) * 2.0;
    // Bump mapping from screen-space derivatives (Mikkelsen 2010, "Bump mapping unparametrized surfaces on the GPU").
    vec3 place = turn * f_place;
    vec3 dx = dFdx(place), dy = dFdy(place);
    vec3 r1 = cross(dy, n), r2 = cross(n, dx);
    float area = dot(dx, r1);
    vec3 slope = sign(area) * (dFdx(height) * r1 + dFdy(height) * r2) * 0.11;
    n = normalize(abs(area) * n - slope + 1e-12);
    vec3 base = painted.rgb * painted.rgb;
    base *= 1.0 - vec3(0.62, 0.72, 0.74) * clamp(-height, 0.0, 1.0) * 0.7;
    float cover = 0.0;
    if (f_scalp > 0.01) {
        float grain = texture(strands, f_place.xz * vec2(0.21, 0.17) + f_place.y * 0.13).r;
        cover = f_scalp * buzz;
        cover = smoothstep(0.0, 1.0, cover + (grain - 0.5) * 2.7 * f_scalp * (1.0 - f_scalp));
        base = mix(base, hair_color * (0.6 + 0.7 * grain), cover * (buzz < 1.0 ? 0.75 : 1.0));
    }
    if (f_place.y < collar && f_place.z < 8.0) base = cloth_color;
    vec3 wrap = vec3(0.28, 0.14, 0.09);
    float rim = 1.0 - max(n.z, 0.0);
    vec3 bounce = mix(vec3(1.0), vec3(1.25, 1.0, 0.92), 1.0 - f_seen.x);  // light between folds turns red
    vec3 light = sky(n) * (0.25 + 0.75 * f_seen.x) * bounce, shine = vec3(0.0);
    for (int i = 0; i < 3; i++) {
        float facing = dot(n, light_directions[i]), seen = f_seen[i + 1];
        float x = max(dot(n, light_halves[i]), 0.0);
        vec3 creep = max((facing + wrap) / (1.0 + wrap), vec3(0.0));
        light += light_colors[i] * creep * (seen + wrap * (seen - seen * seen));
        float lobes = 0.8 * lobe(x, 12.0) + 0.35 * (0.3 + oil) * lobe(x, 48.0);
        shine += light_colors[i] * (seen * step(0.0, facing) * lobes);
    }
    float gloss = painted.a * (0.25 + 0.9 * oil) * (1.0 - cover) * (0.03 + 0.25 * rim * rim * rim * rim);
    return base * light + gloss * (shine + 0.25 * f_seen.x * ambient[0]);
}

float lid_shade(vec2 p) {
    int s = p.x < 0.0 ? 0 : 4;
    float y = lids[s].y;
    for (int i = 0; i < 3; i++) {
        float t = clamp((p.x - lids[s + i].x) / (lids[s + i + 1].x - lids[s + i].x), 0.0, 1.0);
        y += t * (lids[s + i + 1].y - lids[s + i].y);
    }
    return smoothstep(-0.05, 0.42, y - p.y);
}

vec3 shade_eye(vec3 n) {
    float radius = length(f_eye);
    float angle = atan(f_eye.y, f_eye.x) / 6.2832;
    float fibre = texture(strands, vec2(angle * 0.6, radius * 0.012)).r;
    vec3 iris = iris_color * (0.55 + 0.9 * fibre) * mix(1.35, 0.75, smoothstep(8.0, iris_radius, radius));
    iris *= 1.0 - 0.75 * smoothstep(iris_radius - 5.0, iris_radius, radius);
    iris = mix(iris, vec3(0.004), 1.0 - smoothstep(pupil - 1.5, pupil + 1.5, radius));
    vec3 white = sclera_color * mix(vec3(1.0), vec3(0.95, 0.62, 0.55), smoothstep(45.0, 85.0, abs(f_eye.x)));
    vec3 base = mix(iris, white, smoothstep(iris_radius - 2.5, iris_radius + 1.5, radius));
    float lid = lid_shade(f_place.xy);
    vec3 seen = vec3(0.25 + 0.75 * lid);
    vec3 result = base * (diffuse(n, seen, vec3(0.35)) * 0.62 + sky(n) * 0.62) * mix(0.4, 1.0, lid);
    return result + highlight(n, seen, 300.0) * 0.06 * lid + sky(vec3(0.0, 0.8, 0.6)) * mix(0.03, 0.012, scanned);
}

vec3 shade_mouth(vec3 n) {
    float depth = lip_depth - f_place.z;
    float open = exp(-max(depth, 0.0) * 0.36) * (0.08 + 0.92 * smoothstep(3.0, 1.0, abs(f_place.x)))
        * (0.65 + 0.35 * smoothstep(0.05, 0.4, lip_gap));
    bool teeth = f_material > 2.5;
    float inside = teeth ? 1.0 : 0.7;
    vec3 flesh = mix(vec3(0.33, 0.10, 0.09), vec3(0.42, 0.17, 0.15), smoothstep(-5.0, -2.0, f_place.y));
    vec3 base = teeth ? teeth_color : flesh;
    if (scanned > 0.5) { vec3 coded = texture(skin, f_uv).rgb; base = coded * coded; }
    vec3 seen = vec3(open * inside);
    vec3 result = base * (diffuse(n, seen, vec3(0.3)) + sky(n) * open * inside);
    return result + highlight(n, seen, 60.0) * (teeth ? 0.03 : 0.02) * open;
}

void main() {
    vec3 n = normalize(f_normal);
    vec3 result;
    if (f_material < 1.5) result = shade_skin(n);
    else if (f_material < 3.5) result = shade_mouth(n);
    else result = shade_eye(n);
    color = developed(result);
}
"""

# Drawn last and blended: lashes are finer than pixels.
LASH_FRAGMENT = """
in vec3 f_normal; in vec2 f_uv; in vec3 f_place;
out vec4 color;
uniform sampler2D strands;
uniform vec3 hair_color;
uniform float lash_density, liner;
void main() {
    float strand = texture(strands, vec2(f_uv.x * 1.3, 0.5)).r;
    bool upper = f_uv.y > 0.5;
    float cover = lash_density * (upper ? 0.6 : 0.13) * smoothstep(0.25, 0.75, strand) + (upper ? 0.3 : 0.1) * liner;
    cover *= smoothstep(0.08, 0.30, abs(f_uv.x - 6.5));  // lashes thin out towards the nose
    vec3 base = min(mix(vec3(0.008), hair_color * 0.3, 0.3), vec3(0.02));
    color = vec4(developed(base * (0.3 + sky(normalize(f_normal)))).rgb, min(cover, 1.0));
}
"""

HAIR_VERTEX = """
in vec3 extra;
out vec3 f_normal; out vec3 f_extra; out vec3 f_along;
void main() {
    gl_Position = clip * vec4(position, 1.0);
    f_normal = turn * normal; f_extra = extra;
    f_along = turn * normalize(vec3(0.0, -1.0, 0.0) + normal * normal.y);
}
"""

HAIR_FRAGMENT = """
in vec3 f_normal; in vec3 f_extra; in vec3 f_along;
out vec4 color;
uniform sampler2D strands;
uniform vec3 hair_color;
uniform float strand, shade, gray, cap, sweep;
void main() {
    float around = f_extra.x, end = f_extra.y, along = f_extra.z;
    vec2 place = vec2(around * 5.0 + shade + sweep * along * 0.02, along * 0.03 + shade);
    vec2 tuft = texture(strands, place).rg, fine = texture(strands, place * vec2(2.7, 1.3)).rg;
    float ragged = cap > 0.5 ? 0.0 : 0.02 + 0.06 * tuft.r + 0.05 * fine.r;
    if (end > 1.0 - ragged) discard;
    vec3 n = normalize(f_normal);
    if (!gl_FrontFacing) n = -n;
    vec3 t = normalize(f_along - n * dot(f_along, n) + 1e-5);
    vec3 across = cross(n, t);
    n = normalize(n + across * ((tuft.g - 0.5) * 1.4 + (fine.g - 0.5) * 0.8) * strand);
    float bright = mix(1.0, 0.35 + 0.75 * tuft.r + 0.55 * fine.r, strand);
    vec3 base = hair_color * bright;
    base = mix(base, vec3(0.5), gray * 0.4 * smoothstep(0.6, 0.9, fine.r));
    float depth = mix(0.55, 1.0, smoothstep(0.0, 0.5, tuft.r + 0.3));
    vec3 result = base * (diffuse(n, vec3(depth), vec3(0.25)) + sky(n) * depth);
    if (cap < 0.5) {
        for (int i = 0; i < 3; i++) {  // Kajiya & Kay 1989: highlight of a cylinder along t
            float along_half = dot(t, light_halves[i]);
            float s = sqrt(max(1.0 - along_half * along_half, 0.0));
            float lit = smoothstep(-0.2, 0.4, dot(n, light_directions[i]));
            vec3 lobes = vec3(0.014 * lobe(s, 60.0)) + hair_color * 0.5 * lobe(s, 18.0);
            result += light_colors[i] * lit * depth * lobes * (0.4 + fine.r);
        }
    }
    color = developed(result);
}
"""

PLAIN_VERTEX = """
in vec3 extra;
out vec3 f_normal; out vec3 f_extra;
void main() { gl_Position = clip * vec4(position, 1.0); f_normal = turn * normal; f_extra = extra; }
"""

PLAIN_FRAGMENT = """
in vec3 f_normal; in vec3 f_extra;
out vec4 color;
uniform vec3 frame_color;
uniform float lens, tint;
void main() {
    vec3 n = normalize(f_normal);
    vec3 seen = vec3(1.0);
    if (lens < 0.5) {
        vec3 result = frame_color * (diffuse(n, seen, vec3(0.1)) + sky(n));
        color = developed(result + highlight(n, seen, 30.0) * 0.12 + sky(n) * 0.02);
        return;
    }
    vec3 m = normalize(n + vec3(f_extra.xy * 0.25, 0.0));
    float band = smoothstep(0.25, 0.4, sin(f_extra.x * 3.0 + f_extra.y * 2.0 + tint * 50.0) - 0.5);
    vec3 mirror = 0.05 * sky(m) + highlight(m, seen, 40.0) * 0.05 + sky(vec3(0.0, 1.0, 0.0)) * 0.22 * band;
    float cover = clamp(tint + dot(mirror, vec3(0.33)) * 0.7, 0.0, 0.97);
    color = vec4(developed(frame_color * tint * 0.4 * sky(n) + mirror).rgb, cover);
}
"""
